"""Whether all processes of a job see the same folder, which one of them has made."""

import os
import time
from functools import partial
from pathlib import Path

from boltax.errors import RunDirectoryError
from boltax.parallel._group import Group

_PATIENCE = 30.0
"""Seconds that a network's file system may take to show what another machine has written."""


def check_shared(processes: Group, folder: str | os.PathLike[str]) -> None:
    """Refuses a folder that is not the same one for all processes.

    Args:
        processes: of the job.
        folder: the run's.

    Raises:
        RunDirectoryError: in those processes that do not see what the first one writes.
        ProcessError: in the others.
    """
    if processes.is_alone:
        return
    token = processes.of_first("a sign in the run's folder", lambda: _leave_sign(Path(folder)))
    sign = Path(folder, token)
    try:
        processes.together(
            "the look for the run's folder", partial(_look_for, sign, processes.index)
        )
    finally:
        if processes.is_first:
            sign.unlink(missing_ok=True)


def _leave_sign(folder: Path) -> str:
    name = f".shared-{os.getpid()}-{time.time_ns()}"
    (folder / name).touch()
    return name


def _look_for(sign: Path, index: int) -> None:
    until = time.monotonic() + _PATIENCE
    while not sign.exists():
        if time.monotonic() > until:
            raise RunDirectoryError(
                f"Received {sign.parent} in process {index}, which is not the folder of that name "
                "in process 0; expected one that all machines share. Give the path of a shared "
                "disk: logger_params={'base_log_dir': ...}."
            )
        time.sleep(0.1)
