"""``end.json``: how a run ended, and where its time went. For people and for `boltax runs`.

A run that goes on has none: it is removed at the start. So a run without it, in whose folder nobody
writes, was killed. Nothing else depends on it.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boltax.checkpoint._files import read_json, write_json
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import CheckpointError

HOWS = ("finished", "stopped", "interrupted", "failed", "pruned")


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        how: ``"finished"``; ``"stopped"`` by a limit of the call; ``"interrupted"`` by a signal;
            ``"failed"`` by an exception; ``"pruned"`` as a trial of a study.
        reason: the limit, the request of a callback, or the exception; None for none.
        step: completed steps.
        epoch: the epoch in which it ended.
        seconds: of the process that ended it, by what they were spent on.
        time: when, in seconds since 1970.

    Example:
        >>> write_end("run", End("failed", "ValueError: no", 10, 1, {"device": 2.5}))
        >>> read_end("run").reason
        'ValueError: no'
    """

    how: str
    reason: str | None
    step: int
    epoch: int
    seconds: Mapping[str, float]
    time: float = 0.0


def write_end(folder: str | Path, end: End) -> None:
    """Writes ``end.json`` of a run that ends now.

    Raises:
        RunDirectoryError: when it cannot be written.
    """
    seconds = {on: round(spent, 3) for on, spent in end.seconds.items()}
    write_json(RunDirectory(folder).end, asdict(end) | {"seconds": seconds, "time": time.time()})


def forget_end(folder: str | Path) -> None:
    """Removes ``end.json``, for a run that goes on."""
    RunDirectory(folder).end.unlink(missing_ok=True)


def read_end(folder: str | Path) -> End | None:
    """How the run in a folder ended; None where nobody knows."""
    try:
        stored: Any = read_json(RunDirectory(folder).end)
        end = End(**stored)
        is_good = (
            end.how in HOWS
            and isinstance(end.step, int)
            and isinstance(end.epoch, int)
            and all(isinstance(spent, int | float) for spent in end.seconds.values())
        )
    except (CheckpointError, TypeError, AttributeError):
        return None
    return end if is_good else None
