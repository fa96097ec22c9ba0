"""Plain Python loaders as sources: lists, re-iterables, iterators, functions that return one.

May not look at the batches: `CheckedSource` does.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from boltax._types import Batch, Cursor


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


class SequenceSource:
    """Batches with ``[index]`` and ``len()``: a list of them, or an object with these two methods.

    Args:
        loader: the sequence.
    """

    owns_batches = False

    def __init__(self, loader: Any) -> None:
        self.num_batches: int | None = len(loader)
        self._loader = loader

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One pass, from batch `start` on at no cost."""
        batches = (self._loader[index] for index in range(start, len(self._loader)))
        return numbered(batches, epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """Its class and length."""
        return {"kind": class_name(self._loader), "num_batches": self.num_batches}


class IterableSource:
    """Anything that can be iterated again and again; each epoch is one iteration.

    Args:
        loader: the iterable.
    """

    owns_batches = False

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.num_batches = length(loader)
        self._loader = loader

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; the first `start` batches are read and dropped."""
        return numbered(itertools.islice(self._loader, start, None), epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """Its class and length."""
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

    def __init__(self, iterator: Iterator[Batch], steps_per_epoch: int | None = None) -> None:
        self.num_batches = steps_per_epoch
        self._iterator = iterator
        self._drawn = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """The next batches; those before `start` that were not drawn yet are read and dropped."""
        skipped = (epoch - 1) * (self.num_batches or 0) + start - self._drawn
        for _ in itertools.islice(self._draw(), max(skipped, 0)):
            pass
        most = None if self.num_batches is None else self.num_batches - start
        for index, batch in enumerate(itertools.islice(self._draw(), most), start=start):
            yield batch, {"epoch": epoch, "batch": index + 1, "drawn": self._drawn}

    def _draw(self) -> Iterator[Batch]:
        for batch in self._iterator:
            self._drawn += 1
            yield batch

    def fingerprint(self) -> dict[str, Any]:
        """Its class."""
        return {"kind": class_name(self._iterator), "num_batches": self.num_batches}


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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One pass over what the function returns; `start` as that kind of loader takes it."""
        source = self._open_loader(self._function())
        # a generator is fresh, so its own first epoch is meant
        first = 1 if isinstance(source, IteratorSource) else epoch
        for batch, cursor in source.epoch(first, start):
            yield batch, {**cursor, "epoch": epoch}

    def fingerprint(self) -> dict[str, Any]:
        """The function's name."""
        name = getattr(self._function, "__qualname__", class_name(self._function))
        return {"kind": "function", "name": name}
