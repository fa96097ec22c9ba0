"""Grain's data sets and loaders as sources.

May not import grain: a program that has one of them has done so.
"""

import copy
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._arrays import is_a
from boltax.data._cursor import consumed
from boltax.data._fingerprint import PASSING, batch_checksum, short_name, without_addresses
from boltax.data._iterables import class_name, dropping, numbered

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
        self.is_endless = size >= ENDLESS
        self._has_gaps = _has_gaps(dataset)
        self._size = size
        self._dataset = dataset
        self.num_batches = None if self.is_endless or self._has_gaps else size

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One pass, from any batch on at no cost."""
        start = consumed(after, epoch)
        dataset, first = self._dataset, 0
        if not self.is_endless:
            dataset, first = dataset.repeat(), (epoch - 1) * self._size
        if self._has_gaps:  # numbers do not tell the place
            return _by_state(_with_threads(dataset[first : first + self._size]), epoch, after)
        return _by_number(_with_threads(dataset[first + start : first + self._size]), epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """The loader's class and length, and a checksum of the first batch, for seed and size."""
        return {
            "kind": class_name(self._dataset),
            "num_batches": self.num_batches,
            "size": self._size,
            "first_batch": batch_checksum(lambda: self._dataset[0]),
        }


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

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration, from any batch on by Grain's own state."""
        return _by_state(self._loader, epoch, after)

    def fingerprint(self) -> dict[str, Any]:
        """The data set's class, and its parts as far as known without starting workers."""
        return {"kind": class_name(self._loader), "num_batches": None, **_parts(self._loader)}


def _by_number(loader: Any, epoch: int, start: int) -> Iterator[tuple[Batch, Cursor]]:
    with _iterating(loader) as iterator:
        yield from numbered(iterator, epoch, start)


def _by_state(loader: Any, epoch: int, after: Cursor | None) -> Iterator[tuple[Batch, Cursor]]:
    """One iteration with Grain's state in the cursors; without one, batches are dropped."""
    start = dropped = consumed(after, epoch)
    with _iterating(loader) as iterator:
        if after is not None and start and "grain" in after:
            iterator.set_state(_fitting(after["grain"], iterator))
            dropped = 0
        elements = dropping(iterator, dropped, class_name(loader))
        for index, batch in enumerate(elements, start=start):
            yield batch, {"epoch": epoch, "batch": index + 1, **_state(iterator)}


@contextmanager
def _iterating(loader: Any) -> Generator[Any]:
    mark_flags_as_parsed()
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()  # stops its threads and workers


def _state(iterator: Any) -> dict[str, Any]:
    """The state of Grain's iterator where it has one; DataLoader gives JSON as bytes."""
    try:
        state = iterator.get_state()
    except NotImplementedError:
        return {}
    # a copy, whatever Grain does with its own
    return {"grain": state.decode() if isinstance(state, bytes) else copy.deepcopy(state)}


def _fitting(state: Any, iterator: Any) -> Any:
    """The state as its iterator takes it.

    A DataLoader refuses a state with another ``repr`` of its data source or sampler, and the usual
    one has the address of the object in it, which is another one in each process.
    """
    if not isinstance(state, str):
        return state
    saved, now = json.loads(state), json.loads(iterator.get_state())
    for name in ("data_source", "sampler"):
        if without_addresses(saved.get(name)) == without_addresses(now.get(name)):
            saved[name] = now.get(name)
    return json.dumps(saved).encode()


def _parts(loader: Any) -> dict[str, Any]:
    """What decides the batches: sampler and operations, or settings of each transformation."""
    if is_a(loader, "grain", "DataLoader"):
        names = ("_sampler", "_operations", "_shard_options")
        found = {name.strip("_"): repr(getattr(loader, name, None)) for name in names}
        return {name: without_addresses(text) for name, text in found.items()}
    steps: list[Any] = []
    todo = [loader]
    while todo:
        part = todo.pop()
        if is_a(part, "grain", "MapDataset"):  # all that comes before shows in its first element
            steps.append([_step(part), len(part), batch_checksum(lambda part=part: part[0])])
            continue
        steps.append([_step(part), _settings(part)])
        todo += getattr(part, "parents", ())
    return {"steps": steps}


def _settings(part: Any) -> dict[str, Any]:
    """The plain attributes of a transformation, but for those that come with its use."""
    return {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, bool | int | str)
        and name not in PASSING
        and not isinstance(getattr(type(part), name, None), cached_property)
    }


def _step(part: Any) -> str:
    return short_name(class_name(part))
