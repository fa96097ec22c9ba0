"""Checkpoints in folders that are named by their step, and what of them is kept and loaded.

    checkpoints/best/300/metrics.json      step, number of the save, time, and what belongs to it

The order of saving decides which one is the newest, and never the step: steps start again when a
trainer trains twice, and go back when a run is resumed from an older point. So each save gets a
number. A folder appears whole or not at all, and its checksums are compared before it is loaded.
"""

import contextlib
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boltax._base._types import PyTree
from boltax.checkpoint._arrays import write_arrays
from boltax.checkpoint._files import read_json, unwritable, write_json
from boltax.checkpoint._folders import (
    clean_leftovers,
    commit_folder,
    committed_folders,
    remove_folder,
    temporary_folder,
)
from boltax.checkpoint._manifest import verify_folder
from boltax.errors import CheckpointError, RunDirectoryError

_MOST_FAULTS = 10
_MOST = 2**63


class Saved(NamedTuple):
    """The folder of one checkpoint.

    Attributes:
        step: completed optimizer updates; the name of the folder.
        folder: where it is.
        number: how many saves there were up to it; 0 when that cannot be read.
        time: when it was saved; empty when that cannot be read.
        content: what is stored beside the arrays; empty when that cannot be read.
    """

    step: int
    folder: Path
    number: int
    time: str
    content: dict[str, Any]

    @property
    def is_readable(self) -> bool:
        """Whether what is stored beside the arrays is as boltax writes it."""
        return self.number > 0


class StepFolders:
    """All checkpoints of one kind.

    Args:
        directory: the folder that holds them; made with the first save.
        content: what is stored beside the arrays, in ``<content>.json``.
        arrays: the subfolder of the arrays.
    """

    def __init__(self, directory: str | Path, content: str, arrays: str) -> None:
        self.directory = Path(directory)
        self.content = content
        self.arrays = arrays

    def save(
        self,
        step: int,
        arrays: PyTree,
        content: Any,
        *,
        keep: int,
        protected: Collection[int] = (),
    ) -> None:
        """Saves a checkpoint durably, and deletes older ones; one of the same step is replaced.

        Args:
            step: completed optimizer updates.
            arrays: a container of arrays.
            content: plain JSON to be stored beside the arrays.
            keep: how many stay: this one, and those saved last before it.
            protected: steps of others that stay.

        Raises:
            CheckpointError: for a step that is none, or arrays that cannot be stored.
            RunDirectoryError: when the files cannot be written. All older ones are as they were.
        """
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            raise CheckpointError(
                f"Received step={step!r}; expected a whole number from 0, e.g. save(300, ...)."
            )
        final = self.directory / str(int(step))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            clean_leftovers(self.directory)
            saved = self.saved()
            number = 1 + max((each.number for each in saved), default=0)
            try:
                temporary = temporary_folder(final)
                write_arrays(temporary, self.arrays, arrays)
                now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                record = {"step": int(step), "saved": number, "time": now, self.content: content}
                write_json(temporary / f"{self.content}.json", record)
                commit_folder(final)
            except BaseException:
                with contextlib.suppress(OSError):
                    clean_leftovers(self.directory)
                raise
            older = [each for each in saved if each.step != step]
            for each in older[: max(0, len(older) + 1 - keep)]:
                if each.step not in protected:
                    remove_folder(each.folder)
        except RunDirectoryError:
            raise
        except OSError as error:
            raise unwritable(final, error) from error

    def saved(self) -> list[Saved]:
        """All there are, in the order of saving; those without a readable record come first.

        Raises:
            CheckpointError: when the folder that holds them is a link.
        """
        for part in (self.directory.parent, self.directory):
            is_ours = part == self.directory or part.name == "checkpoints"
            if is_ours and part.is_symlink():
                raise CheckpointError(
                    f"Received {part}, a symbolic link, which may lead anywhere; expected a folder "
                    "inside the run's own. Put the whole run's folder where the link leads to."
                )
        found = [
            self._read(int(name), folder)
            for name, folder in committed_folders(self.directory).items()
            if name.isascii() and name.isdigit() and str(int(name)) == name
        ]
        return sorted(found, key=lambda each: each.number)

    def find(self, step: int | None = None) -> Saved | None:
        """The newest good checkpoint; damaged ones are passed over with a warning.

        Args:
            step: look at the one of this step only.

        Returns:
            The checkpoint, whose files are all as they were saved; None when there is none.

        Raises:
            CheckpointError: when there are only damaged ones, naming their files.
        """
        candidates = [each for each in self.saved() if step is None or each.step == step]
        # Nobody knows how old those without a record are: first, so that they are reported.
        candidates.sort(key=lambda each: (not each.is_readable, each.number))
        damaged: list[str] = []
        while candidates:
            found = candidates.pop()
            if not (faults := self.faults(found)):
                for text in damaged:
                    logging.getLogger("boltax").warning(
                        "%s Loading the one of step %d instead; delete the damaged folder, or "
                        "restore it from a copy.",
                        text,
                        found.step,
                    )
                return found
            damaged.append(_damage(found.folder, faults))
        if damaged:
            raise CheckpointError(
                "\n".join(damaged) + "\nRestore the files from a copy, or load another checkpoint."
            )
        return None

    def faults(self, saved: Saved) -> list[str]:
        """What is wrong with the files of a checkpoint, as `verify_folder` says it."""
        faults = verify_folder(saved.folder)
        if not faults and not saved.is_readable:
            return [f"{self.content}.json is not as boltax writes it"]
        return faults

    def remove(self, saved: Saved) -> None:
        """Deletes a checkpoint.

        Raises:
            RunDirectoryError: when it cannot be deleted.
        """
        try:
            remove_folder(saved.folder)
        except OSError as error:
            raise unwritable(saved.folder, error) from error

    def _read(self, step: int, folder: Path) -> Saved:
        unreadable = Saved(step, folder, 0, "", {})
        if folder.is_symlink():
            return unreadable
        try:
            record = read_json(folder / f"{self.content}.json")
        except CheckpointError:
            return unreadable
        content = record.get(self.content) if isinstance(record, dict) else None
        if not isinstance(content, dict) or record.get("step") != step:
            return unreadable
        number, when = record.get("saved"), record.get("time")
        if type(number) is not int or not 0 < number < _MOST or not isinstance(when, str):
            return unreadable
        return Saved(step, folder, number, when, content)


def folders_in(directory: Path) -> StepFolders:
    """The checkpoints in a folder of a run, which is named by their kind."""
    if directory.name == "resume":
        return StepFolders(directory, "progress", "arrays")
    return StepFolders(directory, "metrics", "variables")


def _damage(folder: Path, faults: list[str]) -> str:
    more = len(faults) - _MOST_FAULTS
    named = "; ".join([*faults[:_MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])])
    return f"Received the checkpoint {folder}, which is damaged: {named}. Expected it as saved."
