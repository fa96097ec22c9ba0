"""Batches on the device ahead of their use, each with its own cursor, one or several to a chunk.

May not show how far it has read: a cursor comes with its batch, and with no other.
"""

import functools
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Chunk, Made, Mode, Plan, Rows, stacked
from boltax._base._narrow import DoesNotFitError, does_not_fit, narrow
from boltax._base._trees import form_of, num_examples
from boltax._base._types import Batch, Cursor
from boltax._process._ledger import Ledger
from boltax.data._array_loader import Epoch
from boltax.errors import noting
from boltax.parallel._placement import ONE_DEVICE, Placement

LONGEST = 0.02
"""Seconds after which no further batch is drawn for a chunk: the device and signals would wait."""
PlanNext = Callable[[int], Plan]
"""How to send off the next steps, by the number of batches that were drawn so far."""


def prefetch_to_device(
    stream: Iterable[tuple[Batch, Cursor]],
    plan: PlanNext = lambda _: Plan(),
    *,
    limit: int | None = None,
    depth: int = 2,
    copy: bool = True,
    is_compiled: bool = False,
    begin: Callable[[Chunk], None] | None = None,
    size_of: Callable[[Batch], int] = num_examples,
    placement: Placement = ONE_DEVICE,
) -> Iterator[Chunk]:
    """Puts batches on the device while those before them are in use.

    Transfers are asynchronous and there is no thread: while a chunk is in use, the next one is on
    its way, or up to `depth` of them when they hold a single batch each. On a CPU there is no way
    to go, so a batch is drawn when those before it were sent off, and they run meanwhile.

    Args:
        stream: pairs of a batch and its cursor, as ``Source.epoch`` gives them.
        plan: says how many of the next batches make a chunk, and of what form.
        limit: at most so many batches are drawn.
        depth: batches that are put on the device ahead of their use.
        copy: whether host arrays are copied first. JAX may use the memory of a NumPy array as the
            device's own, or read it later, so only a source that gives new arrays each time
            (``source.owns_batches``) goes without.
        is_compiled: whether a compiled program takes the batches: then data that live on the device
            are handed on as they are, as `Rows`; and on a CPU, where the host's memory is the
            device's, NumPy arrays are, since a program takes them in a tenth of the time of
            `jax.device_put`.
        begin: gets the first batch before anything is planned, to prepare for its form; not that of
            an `ArrayLoader`, whose form can be had before an epoch is begun.
        size_of: the number of examples in a batch.
        placement: where the batches go.

    Yields:
        The batches on the device, each with the cursor that says that it has been consumed.

    Example:
        >>> import numpy as np
        >>> from boltax.data import ArrayLoader
        >>> source = ArrayLoader(np.arange(3), batch_size=2)
        >>> chunks = prefetch_to_device(source.epoch(1))
        >>> [(chunk.cursors[-1]["batch"], chunk.size) for chunk in chunks]
        [(1, 2), (2, 1)]
    """
    reader = _Reader(stream, limit, copy, is_compiled, size_of, placement)
    if begin is not None and (first := reader.first()) is not None:
        begin(first)
    ahead: deque[Chunk] = deque()
    most = 1  # the first step need not wait for the second batch
    while True:
        while len(ahead) < most:
            planned = plan(reader.drawn)
            chunks = reader.read(planned)
            if not chunks:
                break
            ahead.extend(chunks)
            if len(ahead) < most and planned.steps > 1:
                break
        if not ahead:
            return
        yield ahead.popleft()
        most = 1 if reader.is_host_enough else depth + 1


def one_item_each(chunks: Iterable[Chunk], ledger: Ledger) -> Iterator[Chunk | None]:
    """An item for each batch, so that progress can be counted: None, and at its last one the chunk.

    Args:
        chunks: what is gone through.
        ledger: gets the time for which the loop waits for data.
    """
    chunks = iter(chunks)
    while True:
        with ledger.spent("data"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield from itertools.repeat(None, chunk.steps - 1)
        yield chunk


class _Reader:
    """Draws batches and makes chunks of them."""

    def __init__(
        self,
        stream: Iterable[tuple[Batch, Cursor]],
        limit: int | None,
        copy: bool,
        is_compiled: bool,
        size_of: Callable[[Batch], int],
        placement: Placement,
    ) -> None:
        self._items = iter(stream)
        self._epoch = self._items if isinstance(self._items, Epoch) else None
        self._placement = placement
        self._takes_rows = (
            is_compiled and self._epoch is not None and self._epoch.is_resident_on(placement)
        )
        self.is_host_enough = is_compiled and placement.is_host_enough
        is_looked_at = self._epoch is not None and self._epoch.is_known_to_fit
        self._narrow = functools.partial(narrow, is_looked_at=is_looked_at)
        self._size_of = size_of
        self._left, self._copy = limit, copy
        self._pushed_back: list[tuple[Batch, Cursor]] = []
        self._form: Any = None
        self.drawn = 0
        """Batches that are in the chunks made so far."""

    def first(self) -> Chunk | None:
        """The first batch alone, which `read` gives once more; None where there is none to see."""
        if self._epoch is not None or self._left == 0:
            return None
        self._pushed_back = self._draw(1)
        chunks = self._made(Plan(), list(self._pushed_back))
        return chunks[0] if chunks else None

    def read(self, plan: Plan) -> list[Chunk]:
        """The next batches: one chunk as planned, or single batches where they do not fit it."""
        wanted = plan.steps if self._left is None else min(plan.steps, self._left)
        if self._epoch is not None:
            chunks = self._read_rows(self._epoch, plan, wanted)
        else:
            chunks = self._made(plan, self._draw(wanted))
        steps = sum(chunk.steps for chunk in chunks)
        self.drawn += steps
        self._left = None if self._left is None else self._left - steps
        return chunks

    def _read_rows(self, epoch: Epoch, plan: Plan, wanted: int) -> list[Chunk]:
        """Chunks out of arrays in memory, gathered at once and not batch by batch."""
        whole = min(wanted, epoch.whole_batches_left)
        if plan.mode is Mode.LOOP and whole:
            if self._takes_rows:
                feed, cursors = epoch.rows(whole)
                return [Chunk(plan, feed, cursors, feed.size)]
            feed, cursors = epoch.stack(whole, plan.capacity)
            feed = self._on_device(feed, is_stacked=True)
            return [Chunk(plan, feed, cursors, epoch.batch_size)]
        draw = epoch.rows_of_one if self._takes_rows else self._next
        items = [item for _ in range(whole or min(wanted, 1)) if (item := draw()) is not None]
        return self._made(plan if whole else Plan(), items)

    def _draw(self, wanted: int) -> list[tuple[Batch, Cursor]]:
        """Up to so many batches of one form, and no more than come within `LONGEST`."""
        drawn: list[tuple[Batch, Cursor]] = []
        # processes of a job take as many as each other
        until = time.perf_counter() + (LONGEST if self._placement.group.is_alone else math.inf)
        while len(drawn) < wanted and not (drawn and time.perf_counter() > until):
            item = self._pushed_back.pop() if self._pushed_back else self._next()
            if item is None:
                break
            if drawn and form_of(item[0]) != form_of(drawn[0][0]):
                self._pushed_back.append(item)
                break
            drawn.append(item)
        return drawn

    def _next(self) -> tuple[Batch, Cursor] | None:
        """The next batch, in memory that the loader does not use for those behind it."""
        item = next(self._items, None)
        if item is None or not self._copy:
            return item
        # device_put(..., may_alias=False) does not prevent sharing for NumPy arrays
        return jax.tree.map(_copied, item[0]), item[1]

    def _made(self, plan: Plan, items: list[tuple[Batch, Cursor]]) -> list[Chunk]:
        if not items:
            return []
        form = None
        if plan.mode is not Mode.SINGLE or self._form is None:
            form = form_of(items[0][0])
            self._form = self._form or form
        is_whole = len(items) == plan.steps or plan.mode is Mode.LOOP
        is_as_planned = is_whole and form == self._form
        cursors = [cursor for _, cursor in items]
        size = self._size(*items[0])
        if plan.mode is Mode.LOOP and is_as_planned:
            feed = self._stacked(items, plan.capacity)
            return [Chunk(plan, self._on_device(feed, is_stacked=True), cursors, size)]
        feeds = [
            batch if isinstance(batch, Rows) else self._put(batch, cursor)
            for batch, cursor in items
        ]
        if plan.mode is Mode.UNROLLED and is_as_planned:
            return [Chunk(plan, tuple(feeds), cursors, size)]
        single = plan if plan.mode is Mode.SINGLE else Plan()
        return [
            Chunk(single, feed, [cursor], size) for feed, cursor in zip(feeds, cursors, strict=True)
        ]

    def _size(self, batch: Batch, cursor: Cursor) -> int:
        if isinstance(batch, Rows | Made):
            return batch.size
        try:
            return self._size_of(batch)
        except Exception:
            with noting(_named(cursor)):  # entered only now: it costs more than the size
                raise

    def _put(self, batch: Batch, cursor: Cursor) -> Batch:
        """A batch as the step takes it."""
        try:
            return self._on_device(jax.tree.map(self._narrow, batch))
        except DoesNotFitError as error:
            raise does_not_fit([batch], _named(cursor)) from error

    def _on_device(self, tree: Any, *, is_stacked: bool = False) -> Any:
        if self.is_host_enough:
            return tree
        return self._placement.put_feed(tree, is_stacked=is_stacked)

    def _stacked(self, items: list[tuple[Batch, Cursor]], capacity: int) -> Any:
        try:
            return stacked([batch for batch, _ in items], capacity)
        except DoesNotFitError:
            for batch, cursor in items:
                self._put(batch, cursor)  # raises, and says which one
            raise


def _named(cursor: Cursor) -> str:
    """A batch, as messages name it."""
    return f"batch {cursor.get('batch')} of epoch {cursor.get('epoch')}"


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
