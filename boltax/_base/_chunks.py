"""Successive batches for one dispatch, in the forms in which the compiled steps take them.

Values and traced functions only: who draws batches is in `boltax/data`, who chooses in `_fused`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from boltax._base._narrow import device_dtype, stack_into
from boltax._base._types import Batch, Cursor, PyTree


class Mode(Enum):
    """How steps go to the device."""

    SINGLE = "one step in a dispatch"
    LOOP = "several steps in a dispatch, as a compiled loop"
    UNROLLED = "several steps in a dispatch, one after the other"


@dataclass(frozen=True)
class Plan:
    """How the next steps are sent off.

    Attributes:
        mode: see `Mode`.
        steps: at most so many.
        capacity: of how many batches a stack has room for, so that all stacks are of one shape.
        window: what is being timed with these steps, or None.
    """

    mode: Mode = Mode.SINGLE
    steps: int = 1
    capacity: int = 1
    window: Any = None


@dataclass(frozen=True)
class Chunk:
    """Successive batches of one shape, on the device or on their way to it.

    Attributes:
        plan: how they are to be used.
        feed: what the compiled steps take the batches from: a batch for SINGLE, a stack
            ``[capacity, batch, ...]`` for LOOP, a tuple of batches for UNROLLED; `Rows` for the
            first two when the data live on the device.
        cursors: one for each batch.
        size: examples in each batch.
    """

    plan: Plan
    feed: Any
    cursors: Sequence[Cursor]
    size: int

    @property
    def steps(self) -> int:
        """The number of batches."""
        return len(self.cursors)

    @property
    def form(self) -> PyTree:
        """The shapes and dtypes of one batch."""
        return jax.eval_shape(self._first, self.feed)

    def batch(self, index: int) -> Batch:
        """One of the batches, on the device, for a closer look."""
        with jax.transfer_guard("allow"):
            if self.plan.mode is Mode.UNROLLED:
                return batch_of(self.feed[index])
            return batch_at(self.feed, index) if self._is_indexed else batch_of(self.feed)

    @property
    def _is_indexed(self) -> bool:
        return self.plan.mode is Mode.LOOP or isinstance(self.feed, Rows)

    def _first(self, feed: Any) -> Batch:
        if self.plan.mode is Mode.UNROLLED:
            return batch_of(feed[0])
        return batch_at(feed, 0) if self._is_indexed else batch_of(feed)


@struct.dataclass
class Rows:
    """Batches that are gathered on the device, out of a whole data set that lives there.

    Attributes:
        arrays: the data set, ``[examples, ...]``.
        order: the order of the epoch, int32 ``[examples]``.
        first: the place in the order at which the first batch begins, int32.
        size: examples in each batch.
    """

    arrays: PyTree
    order: jax.Array
    first: jax.Array
    size: int = struct.field(pytree_node=False)


@struct.dataclass
class Made:
    """A batch that is made on the device, from a random key.

    Attributes:
        numbers: seed, epoch and number of the batch, uint32 ``[3]``; of several ``[batches, 3]``.
        sample: ``(key, size) -> batch``, traced.
        size: examples in the batch.
    """

    numbers: jax.Array | np.ndarray
    sample: Callable[[jax.Array, int], Batch] = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)

    def batch(self) -> Batch:
        """The batch; traced."""
        seed, epoch, number = (jnp.asarray(self.numbers)[place] for place in range(3))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), number)
        return self.sample(key, self.size)


def batch_of(feed: Any) -> Batch:
    """The only batch of a feed; traced."""
    if isinstance(feed, Made):
        return feed.batch()
    return batch_at(feed, 0) if isinstance(feed, Rows) else feed


def batch_at(feed: Any, index: Any) -> Batch:
    """One batch of a feed of several; traced."""
    if not isinstance(feed, Rows):
        one = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, 0, False), feed)
        return one.batch() if isinstance(one, Made) else one
    place = jnp.asarray(feed.first + index * feed.size, jnp.int32)
    rows = lax.dynamic_slice(feed.order, (place,), (feed.size,))
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), feed.arrays)


def one_of(mode: Mode, feed: Any) -> Any:
    """The shapes and dtypes of one batch of a feed, as the user has it; `Rows` stay."""
    feed = feed[0] if mode is Mode.UNROLLED else feed
    if mode is not Mode.LOOP or isinstance(feed, Rows):
        return feed
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), feed)


def stacked_form(feed: Any, capacity: int) -> Any:
    """The shapes of a stack of so many batches like this one; `Rows` are one already."""
    if isinstance(feed, Rows):
        return feed
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((capacity, *x.shape), x.dtype), feed)


def stacked(batches: list[Batch], capacity: int) -> Any:
    """New arrays ``[capacity, batch, ...]`` in the dtypes of the device, which begin with these.

    What stands behind them was never written, and no step reads it.

    Raises:
        DoesNotFitError: when a number does not fit its dtype.
    """

    def stack(*leaves: Any) -> Any:
        first = leaves[0]
        if isinstance(first, jax.Array):
            return jnp.stack([*leaves, *(first,) * (capacity - len(leaves))])
        stacked = np.empty((capacity, *first.shape), device_dtype(first.dtype))
        stack_into(stacked[: len(leaves)], leaves)
        return stacked

    return jax.tree.map(stack, *batches)
