"""The folder of a run that begins where there is an older one: what that has written stays."""

import logging
import os
from pathlib import Path
from typing import TypeAlias

from boltax.checkpoint._earlier import holds_records, holds_run, keep_earlier, take_back
from boltax.checkpoint._folders import committed_folders
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints, locate_resume
from boltax.checkpoint._rundir import RunDirectory, create_next_version, locate

ResumeFrom: TypeAlias = bool | str | os.PathLike[str] | None
_log = logging.getLogger("boltax")


def goes_on_in(folder: str, resume: ResumeFrom) -> bool:
    """Whether it is the run in this folder that goes on; whatever of it was moved is put back.

    Args:
        folder: the trainer's.
        resume: as for `train_model`.

    Raises:
        CheckpointError: when another run is named, in which there is nothing to resume.
    """
    if resume is None or resume is False:
        return False
    if resume is True:
        take_back(folder)
        return ResumeCheckpoints(RunDirectory(folder).resume).newest_step() is not None
    if _is_same(locate(resume)[0], folder):
        take_back(folder)
    return _is_same(locate_resume(resume)[0], folder)


def what_lies_in(folder: str, resume: ResumeFrom, *, is_used: bool) -> str:
    """What a run finds that begins in a folder.

    Args:
        folder: the trainer's.
        resume: as for `train_model`.
        is_used: whether this trainer, or loggers before it, have written there.

    Returns:
        ``"this run"``, which goes on; ``"a run before"``, which makes way; ``"nothing"``.
    """
    if goes_on_in(folder, resume):
        return "this run"
    return "a run before" if is_used or holds_run(folder) else "nothing"


def look_into(folder: str, *, is_locked: bool) -> tuple[bool, bool]:
    """Whether loggers had written into a folder, and whether a trainer may describe itself there.

    Args:
        folder: the trainer's.
        is_locked: whether its user has named it, so that somebody else may train there.

    Raises:
        RunDirectoryError: when somebody does.
    """
    had_records = False
    if is_locked:
        with RunLock(folder):  # who trains there keeps its files
            had_records = holds_records(folder)
    return had_records, not had_records and not holds_run(folder)


def make_way(name: str, folder: str, lock: RunLock, versions_in: str | None) -> str:
    """A folder for a run that begins, where there is one already; says where each of them is.

    Args:
        name: of the trainer, for the message.
        folder: of the run that there is.
        lock: of that folder; afterwards that of the new one.
        versions_in: where the new run gets a folder ``version_<k>``; None for that of the older
            one, which then moves into a folder in there.

    Raises:
        RunDirectoryError: when the one cannot be made, or the other not be moved.
    """
    if versions_in is None:
        new, older, how = Path(folder), keep_earlier(folder), "is now in"
    else:
        new, older, how = create_next_version(versions_in).path, Path(folder), "stays in"
        lock.move(new)
    _log.warning(
        "%s begins a new run in %s. The one before %s %s%s. To go on with a run instead of "
        "beginning another one, write train_model(..., resume=True).",
        name,
        shown(new),
        how,
        shown(older),
        _way_back(older),
    )
    return str(new)


def shown(folder: str | os.PathLike[str]) -> str:
    """A folder as it is called from here."""
    folder, here = Path(folder), Path.cwd()
    is_below = folder != here and folder.is_relative_to(here)
    return os.fspath(folder.relative_to(here) if is_below else folder)


def _is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _way_back(older: Path) -> str:
    """What can be done with the older run, in words; nothing where that is little."""
    directory, place = RunDirectory(older), shown(older)
    ways = [
        (f"load_from_checkpoint({place!r}) has its best model", directory.best),
        (f"train_model(..., resume={place!r}) goes on with it", directory.resume),
    ]
    told = [text for text, checkpoints in ways if committed_folders(checkpoints)]
    return f": {', '.join(told)}" if told else ""
