"""The folder of a run: where it is made, and where its files are. Writes none of them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from boltax.errors import ConfigurationError, RunDirectoryError

_VERSION = re.compile(r"version_([0-9]+)")


@dataclass(frozen=True, init=False)
class RunDirectory:
    """The places of a run's files. Making one neither reads nor writes anything.

    Attributes:
        path: the run's folder, ``<base_log_dir>/<Model>[/<logger_name>]/version_<k>``.

    Example:
        >>> RunDirectory("runs/ResNet/version_0").history.as_posix()
        'runs/ResNet/version_0/history.csv'
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def hparams(self) -> Path:
        """``hparams.json``: the trainer's arguments."""
        return self.path / "hparams.json"

    @property
    def model_txt(self) -> Path:
        """``model.txt``: the model's summary."""
        return self.path / "model.txt"

    @property
    def history(self) -> Path:
        """``history.csv``: one row for each epoch."""
        return self.path / "history.csv"

    @property
    def metrics(self) -> Path:
        """``metrics/``: one JSON file for each evaluation."""
        return self.path / "metrics"

    @property
    def best(self) -> Path:
        """``checkpoints/best/``: the best models."""
        return self.path / "checkpoints" / "best"

    @property
    def saved(self) -> Path:
        """``checkpoints/saved/``: models that a callback asked to keep."""
        return self.path / "checkpoints" / "saved"

    @property
    def resume(self) -> Path:
        """``checkpoints/resume/``: everything needed to go on."""
        return self.path / "checkpoints" / "resume"

    @property
    def end(self) -> Path:
        """``end.json``: how the run ended, and where its time went."""
        return self.path / "end.json"

    @property
    def nonfinite(self) -> Path:
        """``nonfinite/``: steps whose loss or gradient was not finite, to be run again."""
        return self.path / "nonfinite"


def create_run_directory(
    base_log_dir: str | os.PathLike[str], model_name: str, logger_name: str | None = None
) -> RunDirectory:
    """Makes the folder of a new run: ``<base_log_dir>/<model_name>[/<logger_name>]/version_<k>``.

    ``k`` is one above the highest that exists. Processes that start at the same time get different
    folders.

    Args:
        base_log_dir: folder of all runs; ``~`` is the home folder.
        model_name: the model's class name.
        logger_name: a name for a group of runs; may hold subfolders, ``"ablation/no_dropout"``.

    Returns:
        The new, empty folder, with an absolute path.

    Raises:
        ConfigurationError: for a name that would lead out of `base_log_dir`.
        RunDirectoryError: when the folder cannot be made.
    """
    model = _parts("model name", model_name)
    if len(model) != 1:
        raise _bad_name("model name", model_name)
    group = _parts("logger_name", logger_name) if logger_name else ()
    try:
        parent = _absolute(base_log_dir).joinpath(*model, *group)
        parent.mkdir(parents=True, exist_ok=True)
        return _create_version(parent)
    except (OSError, ValueError) as error:
        raise _cannot("make a folder for the run in", base_log_dir, error) from error


def create_next_version(parent: str | os.PathLike[str]) -> RunDirectory:
    """Makes the folder of a further run, ``<parent>/version_<k>``.

    Raises:
        RunDirectoryError: when it cannot be made.
    """
    try:
        return _create_version(Path(parent))
    except OSError as error:
        raise _cannot("make a folder for the run in", parent, error) from error


def is_version(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has a name that `create_run_directory` gives.

    Example:
        >>> is_version("runs/ResNet/version_0"), is_version("runs/digits")
        (True, False)
    """
    return _VERSION.fullmatch(Path(folder).name) is not None


def open_run_directory(path: str | os.PathLike[str], *, writable: bool = False) -> RunDirectory:
    """The folder of a run at a given place.

    Args:
        path: the folder; ``~`` is the home folder. It is made where it is missing.
        writable: whether the run will write; if not, a folder that can only be read is good enough,
            and a missing one is an error.

    Returns:
        The folder, with an absolute path.

    Raises:
        RunDirectoryError: when there is no such folder, or it cannot be made or written.
    """
    try:
        folder = _absolute(path)
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe.{os.getpid()}"
            probe.touch()  # permission bits do not tell: not for root, nor on every file system
            probe.unlink()
        else:
            os.listdir(folder)
    except (OSError, ValueError) as error:
        raise _cannot("write into" if writable else "read", path, error) from error
    return RunDirectory(folder)


def locate(checkpoint: str | os.PathLike[str]) -> tuple[Path, Path, int | None]:
    """Finds what to load.

    Args:
        checkpoint: a run's folder, for its best model, or the folder of one checkpoint in it.

    Returns:
        The run's folder, the folder of its checkpoints, and the step; None for the newest saved.

    Example:
        >>> [str(part) for part in locate("runs/ResNet/version_0/checkpoints/saved/400")]
        ['runs/ResNet/version_0', 'runs/ResNet/version_0/checkpoints/saved', '400']
    """
    path = Path(checkpoint)
    if path.parent.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parents[2], path.parent, int(path.name)
    return path, RunDirectory(path).best, None


def _create_version(parent: Path) -> RunDirectory:
    version = 1 + max(
        (int(match[1]) for match in map(_VERSION.fullmatch, os.listdir(parent)) if match),
        default=-1,
    )
    while True:
        path = parent / f"version_{version}"
        try:
            path.mkdir()
        except FileExistsError:  # another process was faster
            version += 1
        else:
            return RunDirectory(path)


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Absolute, so that a later chdir changes nothing; links are kept, since they are the user's
    # names for places.
    return Path(os.path.abspath(os.path.expanduser(path)))


def _parts(what: str, name: object) -> tuple[str, ...]:
    if not isinstance(name, str):
        raise _bad_name(what, name)
    path = PurePosixPath(name)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or not name.isprintable()
    ):
        raise _bad_name(what, name)
    return path.parts


def _bad_name(what: str, name: object) -> ConfigurationError:
    subfolders = "; 'group/name' makes a subfolder" if what == "logger_name" else ""
    return ConfigurationError(
        f"Received the {what} {name!r}; expected a name for a folder inside base_log_dir, without "
        f"'..', backslashes or a leading '/'. Write for example 'my_model'{subfolders}."
    )


def _cannot(what: str, path: str | os.PathLike[str], error: Exception) -> RunDirectoryError:
    if what == "read":
        return RunDirectoryError(
            f"Received {os.fspath(path)!r}, but boltax cannot read it: {type(error).__name__}: "
            f"{error}. Expected the folder of a run. Write the one that trainer.log_dir names, "
            "such as 'runs/ResNet/version_0'."
        )
    return RunDirectoryError(
        f"Received {os.fspath(path)!r}, but boltax cannot {what} it: {type(error).__name__}: "
        f"{error}. Expected a folder that this process may use. Write "
        "logger_params={'base_log_dir': 'runs'}, or any folder of yours."
    )
