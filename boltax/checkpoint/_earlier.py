"""A run that makes way for another one in the folder of both: it moves to `earlier/<n>` in there.

    runs/digits/
      hparams.json  history.csv  checkpoints/      the run of now
      earlier/0/                                   the one before, a run's folder like any other

Each entry is renamed; nothing is copied or deleted. Entries gather in ``earlier/.moving-0``, which
gets its name when all are there: a process that is killed in between leaves every file in one of
the two places. Whoever comes next finishes that, or takes it back to go on with the run.

Files of the user's, and other runs in the folder, stay where they are. So do the stores of W&B and
MLflow, where each run has a place of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from boltax.checkpoint._files import sync, unwritable
from boltax.checkpoint._rundir import RunDirectory

_MOVING = ".moving-"
_SIGNS = (
    "history.csv",
    "members.csv",
    "metrics/best_eval.json",
    "metrics/eval_epoch_*.json",
    "checkpoints/best/*",
    "checkpoints/resume/*",
    "nonfinite/*",
)
"""What training alone writes."""
_RECORDS = ("events.out.tfevents.*", "metrics.csv")
"""What loggers write, before the training too."""
_OF_CSV_LOGGER = ("metrics.csv", "hyperparameters.csv")
_ENTRIES = (
    *_RECORDS,
    "hyperparameters.csv",
    "wandb_run_id.txt",
    "mlflow_run_id.txt",
    "end.json",
    "history.csv",
    "members.csv",
    "epochs.csv",
    "metrics/*.json",
    "nonfinite",
    "members",
    "model.txt",
    # last: until these are moved, the model can be loaded from its old place
    "checkpoints/saved",
    "checkpoints/resume",
    "hparams.json",
    "checkpoints/best",
)
_MEDIA = ("images", "figures", "histograms", "text")


def holds_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a run has begun in a folder, which another one would overwrite.

    Example:
        >>> Path("empty").mkdir()
        >>> holds_run("empty")
        False
    """
    return _is_any(Path(folder), (*_SIGNS, f"earlier/{_MOVING}*"))


def holds_records(folder: str | os.PathLike[str]) -> bool:
    """Whether loggers of a run have written into a folder, though nothing else of it is there."""
    return RunDirectory(folder).hparams.exists() and _is_any(Path(folder), _RECORDS)


def earlier_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders of the runs that have made way in a folder, the newest last."""
    return [path for _, path in sorted(_numbered(Path(folder)).items())]


def keep_earlier(folder: str | os.PathLike[str]) -> Path:
    """Moves the run in a folder to ``earlier/<n>`` in there.

    Returns:
        Its new folder.

    Raises:
        RunDirectoryError: when it cannot be moved; it is then where it was.
    """
    folder = Path(folder)
    moving = _moving(folder)
    if moving is None:
        number = 1 + max(_numbered(folder), default=-1)
        moving = folder / "earlier" / f"{_MOVING}{number}"
    final = moving.with_name(moving.name.removeprefix(_MOVING))
    try:
        moving.mkdir(parents=True, exist_ok=True)
        _move(folder, moving)
        sync(moving)
        moving.replace(final)
        sync(final.parent)
    except OSError as error:
        take_back(folder)
        raise unwritable(final, error) from error
    return final


def take_back(folder: str | os.PathLike[str]) -> None:
    """Has a run that was killed while it moved lie in the folder itself again, if there is one.

    Raises:
        RunDirectoryError: when it cannot be moved.
    """
    folder = Path(folder)
    moving = _moving(folder)
    if moving is None:
        return
    try:
        _move(moving, folder)
        for place in (moving / "metrics", moving / "checkpoints", moving):
            if place.is_dir():
                place.rmdir()
        sync(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def _is_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _numbered(folder: Path) -> dict[int, Path]:
    places = (folder / "earlier").glob("*")
    return {int(p.name): p for p in places if p.name.isascii() and p.name.isdigit()}


def _moving(folder: Path) -> Path | None:
    places = (folder / "earlier").glob(f"{_MOVING}*")
    return next((place for place in places if place.is_dir()), None)


def _move(source: Path, target: Path) -> None:
    """Renames all that is a run's; where both places have an entry, each keeps its own."""
    for entry in list(_entries(source)):
        place = target / entry.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(place):
            entry.replace(place)


def _entries(folder: Path) -> Iterator[Path]:
    if folder.name.startswith(_MOVING) or _is_any(folder, _OF_CSV_LOGGER):
        yield from (path for name in _MEDIA if os.path.lexists(path := folder / name))
    for pattern in _ENTRIES:
        yield from folder.glob(pattern)
