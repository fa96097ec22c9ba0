"""Checkpoints in folders that are named by their step, and what of them is kept and loaded.

    checkpoints/best/300/metrics.json      step, number of the save, time, and what belongs to it

They have an order, whose last one is loaded. It is that of saving, and never that of the steps:
steps start again when a trainer trains twice, and go back when a run is resumed from an older
point. So each save gets a number. One that is saved below others, which are better, holds the whole
order as a list of steps, and so do those after it as long as the numbers tell another one.

A folder appears whole or not at all, and its checksums are compared before it is loaded.
"""

import contextlib
import logging
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boltax._base._types import PyTree
from boltax.checkpoint._arrays import fault_of_arrays, write_arrays
from boltax.checkpoint._files import read_json, unwritable, write_json
from boltax.checkpoint._folders import (
    clean_leftovers,
    commit_folder,
    committed_folders,
    remove_folder,
    temporary_folder,
    temporary_path,
)
from boltax.checkpoint._manifest import verify_folder
from boltax.checkpoint._plain import short
from boltax.errors import CheckpointError, RunDirectoryError
from boltax.parallel._group import group

_MOST_FAULTS = 10
_MOST = 2**63
THREAD = "files"
"""In which processes tell each other of saves, whichever thread it is: one after the other."""


class Saved(NamedTuple):
    """The folder of one checkpoint.

    Attributes:
        step: completed optimizer updates; the name of the folder.
        folder: where it is.
        number: how many saves there were up to it; 0 when that cannot be read.
        time: when it was saved; empty when that cannot be read.
        content: what is stored beside the arrays; empty when that cannot be read.
        order: the steps of all that there were with this one, the last being the one to load; None
            when that is the order of saving.
        fault: why the rest cannot be read; empty when it can.
    """

    step: int
    folder: Path
    number: int
    time: str
    content: dict[str, Any]
    order: tuple[int, ...] | None = None
    fault: str = ""

    @property
    def is_readable(self) -> bool:
        """Whether what is stored beside the arrays is as boltax writes it."""
        return not self.fault


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
        ranking: Sequence[int] = (),
        protected: Collection[int] = (),
    ) -> None:
        """Saves a checkpoint durably, and deletes others; one of the same step is replaced.

        Args:
            step: completed optimizer updates.
            arrays: a container of arrays.
            content: plain JSON to be stored beside the arrays.
            keep: how many stay: this one, and the last ones in the order.
            ranking: steps in their order, this one among them; by default it comes last.
            protected: steps of others that stay.

        Raises:
            CheckpointError: for a step that is none, or arrays that cannot be stored.
            RunDirectoryError: when the files cannot be written. All older ones are as they were.
        """
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            raise CheckpointError(
                f"Received step={step!r}; expected a whole number from 0, e.g. save(300, ...)."
            )
        final, processes = self.directory / str(int(step)), group()
        what = f"the checkpoint {final}"
        try:
            saved = processes.by_first(what, lambda: self._begin(final), thread=THREAD) or []
            order = with_step([each.step for each in saved], int(step), ranking)
            try:
                temporary = temporary_path(final)
                write = partial(write_arrays, temporary, self.arrays, arrays)
                processes.together(what, write, thread=THREAD)
                commit = partial(self._commit, final, int(step), content, saved, order)
                processes.by_first(what, commit, thread=THREAD)
            except BaseException:
                if processes.is_first:
                    with contextlib.suppress(OSError):
                        clean_leftovers(self.directory)
                raise
            discard = partial(_discard, saved, order[: max(0, len(order) - keep)])
            processes.by_first(what, partial(discard, {step, *protected}), thread=THREAD)
        except RunDirectoryError:
            raise
        except OSError as error:
            raise unwritable(final, error) from error

    def _begin(self, final: Path) -> list[Saved]:
        """Makes room for a checkpoint; gives those that there are."""
        self.directory.mkdir(parents=True, exist_ok=True)
        clean_leftovers(self.directory)
        saved = self.saved()
        temporary_folder(final)
        return saved

    def _commit(
        self, final: Path, step: int, content: Any, saved: Sequence[Saved], order: list[int]
    ) -> None:
        """Writes what stands beside the arrays, and has the checkpoint appear."""
        number = 1 + max((each.number for each in saved), default=0)
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        record = {"step": step, "saved": number, "time": now, self.content: content}
        if order != [*_by_number(saved, without=step), step]:
            record["order"] = order
        write_json(temporary_path(final) / f"{self.content}.json", record)
        commit_folder(final)

    def saved(self) -> list[Saved]:
        """All there are, in their order; those without a readable record come first.

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
        found.sort(key=lambda each: each.number)
        order = found[-1].order if found else None
        if order is None:
            return found
        places = {step: place for place, step in enumerate(order)}
        return sorted(found, key=lambda e: places.get(e.step, -1) if e.is_readable else -2)

    def find(self, step: int | None = None) -> Saved | None:
        """The last good checkpoint in the order; damaged ones are passed over with a warning.

        Args:
            step: look at the one of this step only.

        Returns:
            The checkpoint, whose files are all as they were saved; None when there is none.

        Raises:
            CheckpointError: when there are only damaged ones, naming their files.
        """
        processes = group()
        if processes.is_alone:
            return self._find(step)
        look = partial(self._find, step)
        chosen = processes.of_first("the look for a checkpoint", lambda: _step_of(look()))
        return next((each for each in self.saved() if each.step == chosen), None)

    def _find(self, step: int | None) -> Saved | None:
        candidates = [each for each in self.saved() if step is None or each.step == step]
        # Nobody knows how old those without a record are: first, so that they are reported.
        candidates.sort(key=lambda each: not each.is_readable)
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
        """What is wrong with the files of a checkpoint; nothing for one that can be loaded."""
        if faults := verify_folder(saved.folder):
            return faults
        fault = saved.fault or fault_of_arrays(saved.folder, self.arrays)
        return [fault] if fault else []

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
        if folder.is_symlink():
            return Saved(step, folder, 0, "", {}, fault="it is a symbolic link")
        name = f"{self.content}.json"
        try:
            record = read_json(folder / name)
        except CheckpointError as error:
            return Saved(step, folder, 0, "", {}, fault=str(error))
        record = record if isinstance(record, dict) else {}
        number: Any = record.get("saved")
        order = record.get("order")
        checks = {
            self.content: isinstance(record.get(self.content), dict),
            "step": type(record.get("step")) is int and record["step"] == step,
            "saved": type(number) is int and 0 < number < _MOST,
            "time": isinstance(record.get("time"), str),
            "order": order is None or _is_order(order, step),
        }
        if wrong := [field for field, is_good in checks.items() if not is_good]:
            received = short(record[wrong[0]]) if wrong[0] in record else "nothing"
            fault = f"{name} is not as boltax writes it: {wrong[0]!r} is {received}"
            return Saved(step, folder, 0, "", {}, fault=fault)
        content, when = record[self.content], record["time"]
        return Saved(step, folder, number, when, content, None if order is None else tuple(order))


def _discard(saved: Sequence[Saved], steps: Sequence[int], protected: Collection[int]) -> None:
    folders = {each.step: each.folder for each in saved}
    for step in steps:
        if step not in protected:
            remove_folder(folders[step])


def _step_of(saved: Saved | None) -> int | None:
    return None if saved is None else saved.step


def with_step(order: Sequence[int], step: int, ranking: Sequence[int] = ()) -> list[int]:
    """An order with one more step in it.

    The order may lack some of the ranking, which are not saved yet, and have others, which came
    since or are of an earlier time: what is there says where the step goes.

    Args:
        order: the steps that there are.
        step: the one to be put among them.
        ranking: steps in their order with this one among them; it comes last by default.

    Example:
        >>> with_step([10, 20, 30, 50], 40, ranking=[20, 40, 30])
        [10, 20, 40, 30, 50]
    """
    others, ranked = [each for each in order if each != step], list(ranking)
    if step not in ranked or ranked[-1] == step:
        return [*others, step]
    place = ranked.index(step)
    above = [others.index(each) for each in ranked[place + 1 :] if each in others]
    below = [others.index(each) + 1 for each in ranked[:place] if each in others]
    index = min(above) if above else max(below, default=0)
    return [*others[:index], step, *others[index:]]


def _by_number(saved: Sequence[Saved], *, without: int) -> list[int]:
    ordered = sorted(saved, key=lambda each: each.number)
    return [each.step for each in ordered if each.step != without]


def _is_order(order: Any, step: int) -> bool:
    is_list = isinstance(order, list) and all(type(each) is int for each in order)
    return is_list and step in order and len(set(order)) == len(order)


def folders_in(directory: Path) -> StepFolders:
    """The checkpoints in a folder of a run, which is named by their kind."""
    if directory.name == "resume":
        return StepFolders(directory, "progress", "arrays")
    return StepFolders(directory, "metrics", "variables")


def _damage(folder: Path, faults: list[str]) -> str:
    more = len(faults) - _MOST_FAULTS
    named = "; ".join([*faults[:_MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])])
    return f"Received the checkpoint {folder}, which is damaged: {named}. Expected it as saved."
