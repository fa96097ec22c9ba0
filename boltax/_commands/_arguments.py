"""What the commands share: exit statuses, kinds of arguments, the check of a run's folder."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from boltax.errors import ConfigurationError, RunDirectoryError

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

DAMAGED = DOES_NOT_FIT = FAULTY_FILE = 1
FAILED = 2
INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def add_traceback(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--traceback",
        dest="has_traceback",
        action="store_true",
        help="show the whole traceback of an error in FILE.py",
    )


def add_trainer(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trainer",
        dest="file",
        metavar="FILE.py:CLASS",
        help="the trainer's class; the file is loaded, as import would (default: that of a run of "
        "boltax fit)",
    )


def trainer_class(options: argparse.Namespace) -> Any:
    """The class that ``--trainer`` names, or a run that `boltax fit` made.

    Trainers that the file makes leave no folder.
    """
    from boltax._build._construction import previewing
    from boltax._process._user_files import find_in_file

    if options.file is None:
        options.file = _stored_trainer(options.path)
    text = options.file
    with previewing():
        found = find_in_file(text)
    if not isinstance(found, type):
        raise ConfigurationError(
            f"Received {text}, which is no class; expected that of the trainer. Write "
            f"--trainer {text.rpartition(':')[0]}:Classifier"
        )
    return found


def _stored_trainer(path: str) -> str:
    from boltax.checkpoint._rundir import locate

    file = locate(Path(path).expanduser())[0] / "config.yaml"
    if file.is_file():
        from boltax._configure._mapping import read_mapping

        stored = read_mapping(str(file)).get("trainer")
        if isinstance(stored, str):
            return stored
    raise ConfigurationError(
        f"Received {path!r} without --trainer, and boltax fit did not make that run; expected the "
        "trainer's class. Write --trainer train.py:Classifier."
    )


def check_folder(path: str) -> None:
    if not Path(path).expanduser().is_dir() and "checkpoints" not in Path(path).parts:
        from boltax.checkpoint._nearby import advice_on

        found = "a file" if Path(path).exists() else "no folder"
        raise RunDirectoryError(
            f"Received {path!r}, which is {found}; expected the folder of a run. {advice_on(path)}"
        )


def positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"received {text!r}; expected a positive number")
    return number


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers that are not too small, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"received {text!r}; expected a whole number of at least {least}"
            )
        return int(text)

    return read
