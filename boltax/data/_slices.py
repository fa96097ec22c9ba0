"""Epochs of a fixed number of steps, cut out of one pass after the other over a loader.

So an endless loader has epochs, and a long one is seen whole although an epoch ends before it does.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._cursor import consumed
from boltax.data._iterables import dropping


class EpochSlices:
    """A source whose epoch `e` is batches ``(e-1) * steps`` to ``e * steps`` of an endless stream.

    The stream is pass after pass over the loader. It assigns to itself to hold the stream that is
    being read, since the next epoch goes on where this one ends.

    Args:
        source: one pass over it is ``source.epoch(number)``.
        steps: batches in an epoch.
    """

    def __init__(self, source: Any, steps: int) -> None:
        self.num_batches: int | None = steps
        self.owns_batches: bool = getattr(source, "owns_batches", False)
        self._source = source
        self._steps = steps
        self._position = 0
        self._stream = self._stream_from(0)

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; the cursor holds that of the pass as well.

        An epoch that does not follow on the last one goes on behind `after`. Without that it is
        found by its number where the loader has a length, and otherwise by reading all before it.
        """
        start = consumed(after, epoch)
        first = (epoch - 1) * self._steps + start
        if first != self._position:
            self._stream, self._position = self._stream_from(first, after), first
        return self._cut(epoch, start)

    def _cut(self, epoch: int, start: int) -> Iterator[tuple[Batch, Cursor]]:
        for index in range(start, self._steps):
            try:
                batch, cursor = next(self._stream)
            except StopIteration:
                return
            self._position += 1
            yield batch, {"epoch": epoch, "batch": index + 1, "pass": cursor}

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the loader, and the number of steps."""
        return {**self._source.fingerprint(), "steps_per_epoch": self._steps}

    def _stream_from(
        self, position: int, after: Cursor | None = None
    ) -> Iterator[tuple[Batch, Cursor]]:
        if after is not None and (after["epoch"] - 1) * self._steps + after["batch"] == position:
            return _passes(self._source, after["pass"]["epoch"], after["pass"])
        if num_batches := self._source.num_batches:
            number, start = divmod(position, num_batches)
            return _passes(self._source, number + 1, {"epoch": number + 1, "batch": start})
        return dropping(_passes(self._source, 1, None), position, "the loader")


# No method: a generator that holds `self`, which holds it, is a cycle, and workers of a loader that
# only the garbage collector finds take 5 seconds each to stop.
def _passes(source: Any, first: int, after: Cursor | None) -> Iterator[tuple[Batch, Cursor]]:
    for number in itertools.count(first):
        given = 0
        for given, item in enumerate(source.epoch(number, after), start=1):  # noqa: B007
            yield item
        if not given and after is None:
            return  # an empty loader, or one that can be read only once
        after = None
