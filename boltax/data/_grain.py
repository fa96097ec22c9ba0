"""Grain's data sets and loaders as sources.

May not import grain: a program that has one of them has done so.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

from boltax._types import Batch, Cursor
from boltax.data._iterables import class_name

ENDLESS = 2**62
"""Grain gives a data set that repeats for ever a length near 2**63."""


def mark_flags_as_parsed() -> None:
    """Lets Grain's workers start in a program that does not use absl's command line flags.

    They read flags of absl, which raises `UnparsedFlagAccessError` without ``absl.app.run``.
    """
    flags = sys.modules.get("absl.flags")
    if flags is not None and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class GrainMapSource:
    """A `grain.MapDataset` whose elements are batches.

    Epoch `e` is pass `e` of ``dataset.repeat()``, so a data set with ``shuffle`` has another order
    in each epoch, which is a function of its seed and the epoch. A batch is found by its number.

    Args:
        dataset: the data set, batched.
    """

    owns_batches = False

    def __init__(self, dataset: Any) -> None:
        size = len(dataset)
        self._is_endless = size >= ENDLESS
        self._has_gaps = _has_gaps(dataset)
        self._size = size
        self._dataset = dataset
        self.num_batches = None if self._is_endless or self._has_gaps else size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One pass, from batch `start` on at no cost (unless a filter leaves batches out)."""
        dataset, first = self._dataset, 0
        if not self._is_endless:
            dataset, first = dataset.repeat(), (epoch - 1) * self._size
        dropped = start if self._has_gaps else 0
        elements = dataset[first + start - dropped : first + self._size]
        return _read(_with_threads(elements), epoch, start, dropped)

    def fingerprint(self) -> dict[str, Any]:
        """Its class and length."""
        return {"kind": class_name(self._dataset), "num_batches": self.num_batches}


def _has_gaps(dataset: Any) -> bool:
    try:
        dataset.batch(1)
    except ValueError:  # so Grain refuses a data set in which `filter` leaves gaps
        return True
    return False


def _with_threads(dataset: Any) -> Any:
    grain: Any = sys.modules["grain"]
    # elements are whole batches, and Grain's default would hold 500 of them
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=16, prefetch_buffer_size=16))


class GrainIterSource:
    """A `grain.IterDataset` or `grain.DataLoader`; each epoch is one iteration.

    These give the same order each time: pass the `MapDataset` to have it shuffled anew, or repeat
    it in Grain and say where an epoch ends with ``LoopOptions(steps_per_epoch=...)``.

    Args:
        loader: the data set, batched.
    """

    owns_batches = False
    num_batches: int | None = None

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; the first `start` batches are read and dropped."""
        return _read(self._loader, epoch, start, dropped=start)

    def fingerprint(self) -> dict[str, Any]:
        """Its class."""
        return {"kind": class_name(self._loader), "num_batches": None}


def _read(loader: Any, epoch: int, start: int, dropped: int) -> Iterator[tuple[Batch, Cursor]]:
    """The elements from number `dropped` on, with Grain's own state in the cursors."""
    mark_flags_as_parsed()
    iterator = iter(loader)
    try:
        elements = itertools.islice(iterator, dropped, None)
        for index, batch in enumerate(elements, start=start):
            yield batch, {"epoch": epoch, "batch": index + 1, **_state(iterator)}
    finally:
        getattr(iterator, "close", lambda: None)()  # stops its threads and workers


def _state(iterator: Any) -> dict[str, Any]:
    """The state of Grain's iterator where it is JSON; DataLoader gives JSON as bytes."""
    try:
        state = iterator.get_state()
        if isinstance(state, bytes):
            return {"grain": state.decode()}
        return {"grain": json.loads(json.dumps(state))}  # a copy, whatever Grain does with its own
    except (NotImplementedError, TypeError, ValueError):
        return {}
