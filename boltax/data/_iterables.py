"""Plain Python loaders as sources: lists, re-iterables, iterators, functions that return one.

May not look at the batches: `CheckedSource` does.
"""

import contextlib
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._cursor import consumed
from boltax.data._fingerprint import batch_checksum
from boltax.errors import DataError

_log = logging.getLogger("boltax")
_SPENT: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Iterators that were read in this process: what they gave ahead of its use does not come again."""


def class_name(loader: object) -> str:
    """The loader's class as Python source: ``torch.utils.data.dataloader.DataLoader``."""
    cls = type(loader)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def length(loader: object) -> int | None:
    """``len(loader)`` where it works; loaders that have none on this data set raise."""
    try:
        return len(loader)  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError, AttributeError):
        return None


def numbered(
    batches: Iterable[Batch], epoch: int, start: int = 0
) -> Iterator[tuple[Batch, Cursor]]:
    """The batches with their cursors; the first of them is number ``start + 1`` of the epoch."""
    for index, batch in enumerate(batches, start=start):
        yield batch, {"epoch": epoch, "batch": index + 1}


def dropping(
    batches: Iterable[Batch], number: int, name: str, *, keep: int | None = None
) -> Iterator[Batch]:
    """The batches behind the first `number`, which are read and dropped; says so, and how long.

    Args:
        batches: what to read.
        number: how many to drop.
        name: the loader's class, for the message.
        keep: how many of the others to give; None for all.

    Raises:
        DataError: when there are fewer.
    """
    stream = iter(batches)
    started, dropped = time.monotonic(), 0
    for _ in itertools.islice(stream, max(number, 0)):
        dropped += 1
    if dropped:
        _log.warning(
            "To go on where the run was interrupted, %d batches of %s were read and dropped, in "
            "%.1f s. An ArrayLoader, a Grain data set and torchdata's StatefulDataLoader find the "
            "place without reading.",
            dropped,
            name,
            time.monotonic() - started,
        )
    if dropped < number:
        raise DataError(
            f"Received {name}, which ended after {dropped} batches, to go on with behind batch "
            f"{number}; expected the loader of the run that was interrupted. Pass that one, or "
            "start a new run."
        )
    yield from itertools.islice(stream, keep)


class SequenceSource:
    """Batches with ``[index]`` and ``len()``: a list of them, or an object with these two methods.

    Args:
        loader: the sequence.
    """

    owns_batches = False

    def __init__(self, loader: Any) -> None:
        self.num_batches: int | None = len(loader)
        self._loader = loader

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One pass, from any batch on at no cost."""
        start = consumed(after, epoch)
        batches = (self._loader[index] for index in range(start, len(self._loader)))
        return numbered(batches, epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """The loader's class and length, and a checksum of the first batch."""
        first = batch_checksum(lambda: self._loader[0]) if self.num_batches else None
        return {
            "kind": class_name(self._loader),
            "num_batches": self.num_batches,
            "first_batch": first,
        }


class IterableSource:
    """Anything that can be iterated again and again; each epoch is one iteration.

    Args:
        loader: the iterable.
    """

    owns_batches = False
    may_give_more = True

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.num_batches = length(loader)
        self._loader = loader

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; batches that were consumed are read and dropped."""
        start = consumed(after, epoch)
        return numbered(dropping(self._loader, start, class_name(self._loader)), epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """The loader's class and length."""
        return {"kind": class_name(self._loader), "num_batches": self.num_batches}


class IteratorSource:
    """An iterator or generator, which is read once: each epoch goes on where the last one ended.

    It draws a batch only when it is asked for one, so closing an epoch early loses none. It assigns
    to itself to count the batches drawn.

    Args:
        iterator: the iterator.
        steps_per_epoch: after how many batches an epoch ends; None for its end.
    """

    owns_batches = False
    is_read_once = True

    def __init__(self, iterator: Iterator[Batch], steps_per_epoch: int | None = None) -> None:
        self.num_batches = steps_per_epoch
        self._iterator = iterator
        self._drawn = 0
        self._has_ended = False

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The next batches; those consumed before are read and dropped if they were not drawn yet.

        Raises:
            DataError: when batches behind `after` were drawn already, so that they are lost, or
                when it ended within an epoch before.
        """
        start = consumed(after, epoch)
        drawn = (epoch - 1) * (self.num_batches or 0) + start if after is None else after["drawn"]
        is_spent = not self._drawn and self._iterator in _SPENT
        if after is not None and (drawn < self._drawn or is_spent):
            raise DataError(
                f"Received an iterator ({class_name(self._iterator)}) to resume with, of which "
                "batches were read before; expected a new one, since what was read ahead is lost. "
                "Pass a function that returns a fresh iterator: lambda: make_batches()."
            )
        if self._has_ended and self._drawn and drawn > self._drawn:
            raise DataError(
                f"Received an iterator ({class_name(self._iterator)}) for epochs of "
                f"{self.num_batches} steps, which ended after {self._drawn} batches, within epoch "
                f"{self._drawn // (self.num_batches or 1) + 1}; expected more for epoch {epoch}. "
                f"Write train_model(..., max_steps={self._drawn}) to end with it, or pass a "
                "function that returns a fresh one, which is read pass after pass: "
                "lambda: make_batches()."
            )
        for _ in dropping(self._draw(), drawn - self._drawn, class_name(self._iterator), keep=0):
            pass
        _note_spent(self._iterator)
        most = None if self.num_batches is None else self.num_batches - start
        for index, batch in enumerate(itertools.islice(self._draw(), most), start=start):
            yield batch, {"epoch": epoch, "batch": index + 1, "drawn": self._drawn}

    def _draw(self) -> Iterator[Batch]:
        for batch in self._iterator:
            self._drawn += 1
            yield batch
        self._has_ended = True

    def fingerprint(self) -> dict[str, Any]:
        """The loader's class."""
        return {"kind": class_name(self._iterator), "num_batches": self.num_batches}


def _note_spent(iterator: object) -> None:
    with contextlib.suppress(TypeError):  # some iterators of builtins cannot be remembered
        _SPENT.add(iterator)


class FunctionSource:
    """A function without arguments that returns a loader: it is called once for each epoch.

    Args:
        function: returns an iterator, or a loader of any other kind.
        open_loader: makes a source of what it returns.
    """

    owns_batches = False
    num_batches: int | None = None

    def __init__(self, function: Callable[[], Any], open_loader: Callable[[Any], Any]) -> None:
        self._function = function
        self._open_loader = open_loader

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One pass over what the function returns; `after` as that kind of loader takes it."""
        source = self._open_loader(self._function())
        # a generator is fresh, so its own first epoch is meant
        first = 1 if isinstance(source, IteratorSource) else epoch
        is_of_this = after is not None and after["epoch"] == epoch
        inner = {**after, "epoch": first} if after is not None and is_of_this else None
        for batch, cursor in source.epoch(first, inner):
            yield batch, {**cursor, "epoch": epoch}

    def fingerprint(self) -> dict[str, Any]:
        """The function's name."""
        name = getattr(self._function, "__qualname__", class_name(self._function))
        return {"kind": "function", "name": name}
