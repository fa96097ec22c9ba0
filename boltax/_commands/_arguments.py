"""What the commands share: exit statuses, kinds of arguments, the check of a run's folder."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from boltax.errors import RunDirectoryError

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
