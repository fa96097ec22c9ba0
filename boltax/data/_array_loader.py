"""Arrays in memory as a loader: any pytree of them, at the speed of plain indexing.

The order of an epoch is a pure function of (seed, epoch), so a run that is resumed, or read from
the middle of an epoch, sees what the uninterrupted one sees. May not keep a position: each
iteration has its own.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, final, overload

import jax
import numpy as np

from boltax._base._argument_names import with_known_names
from boltax._base._chunks import Rows
from boltax._base._narrow import (
    DoesNotFitError,
    check_integers,
    device_dtype,
    does_not_fit,
    has_64_bits,
    narrow_into,
    narrowed,
)
from boltax._base._trees import describe, describe_leaf
from boltax._base._types import Batch, Cursor, PyTree
from boltax._base._whole import is_whole
from boltax.data._batches import check_leaves, to_host
from boltax.data._cursor import consumed
from boltax.data._fingerprint import checksum
from boltax.data._huggingface import is_rows, rows_of
from boltax.errors import ConfigurationError, DataError
from boltax.parallel._placement import ONE_DEVICE, Placement

MOST_LOOKED_AT = 2**28
"""Bytes of an array whose integers are looked at all at once."""


@final
class ArrayLoader:
    """Batches from arrays in memory; the fastest loader where the data fits.

    It is iterated like any loader: each new iteration is a further epoch, in an order of its own
    when shuffled. It is a `Source` as well: `epoch` gives any epoch from any batch on, and is not
    affected by iterations by hand. Batches that are not shuffled are read-only views of the arrays.

    Args:
        arrays: any pytree of arrays ``[examples, ...]`` that agree on their first axis: NumPy, or
            what NumPy converts (JAX arrays and tensors are converted once, here); or a Hugging Face
            `Dataset`, whose columns become a dict of arrays.
        batch_size: examples in a batch; the last one of an epoch may have fewer.
        shuffle: whether each epoch has an order of its own, by (`seed`, epoch).
        drop_last: whether to leave out a last batch that would have fewer examples.
        seed: decides the orders, from 0.
        device_resident: whether the arrays are put on the device once, and batches gathered there
            in the compiled program, in the same order. ``"auto"`` does so on an accelerator where
            they take at most a quarter of the memory that is free. On a CPU it does not: there the
            host's memory is the device's, and NumPy gathers faster.

    Raises:
        DataError: when arrays disagree, hold no example, or too few for one batch with `drop_last`.
        ConfigurationError: when `batch_size` or `seed` is no whole number of the range.

    Example:
        >>> import numpy as np
        >>> from boltax.data import ArrayLoader
        >>> loader = ArrayLoader({"x": np.arange(5.0), "y": np.arange(5)}, batch_size=2)
        >>> len(loader), loader.num_examples
        (3, 5)
        >>> [batch["y"].tolist() for batch in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init_subclass__(cls) -> None:
        raise ConfigurationError(
            f"Received the subclass {cls.__name__} of ArrayLoader; expected none, since trainers "
            "read epochs by number and would not see an overridden __iter__. Pass a function "
            "instead: lambda: (augment(batch) for batch in loader)."
        )

    @with_known_names
    def __init__(
        self,
        arrays: PyTree,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        *,
        device_resident: bool | str = "auto",
    ) -> None:
        _check_resident(device_resident)
        if np.ndim(batch_size) or (isinstance(batch_size, Sequence) and batch_size):
            raise ConfigurationError(
                f"Received ArrayLoader({_given(arrays)}, {_given(batch_size)}, "
                "...), arrays one by one; expected all of them in one tuple or dict, and then the "
                "batch size. Write ArrayLoader((inputs, labels), batch_size=128)."
            )
        _check_whole("batch_size", batch_size, minimum=1)
        _check_whole("seed", seed, minimum=0)
        arrays = rows_of(arrays) if is_rows(arrays) else arrays
        self.arrays, self._leaves, self._treedef = _read_only(arrays)
        self.num_examples = check_leaves(self.arrays, "ArrayLoader(arrays)", "arrays")
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.seed = int(seed)
        self.device_resident = device_resident
        self._iterations = itertools.count(1)
        self._resident: dict[Any, PyTree | None] = {}
        if self.num_batches == 0:
            raise DataError(
                f"Received ArrayLoader(batch_size={batch_size}, drop_last=True) with "
                f"{self.num_examples} examples ({describe(self.arrays, 'arrays')}); expected at "
                "least one full batch. Use drop_last=False or a smaller batch_size."
            )

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.num_examples, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    @property
    def owns_batches(self) -> bool:
        """Whether nobody else holds the memory of a batch: so for shuffled ones, which are new."""
        return self.shuffle

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        epoch = next(self._iterations)
        return (batch for batch, _ in self.epoch(epoch))

    def epoch(self, epoch: int, after: Cursor | None = None) -> "Epoch":
        """The batches of one epoch, each with the cursor that says that it has been consumed.

        Args:
            epoch: which one, from 1.
            after: the cursor of the last batch that was consumed; those up to it are not read.

        Example:
            >>> loader = ArrayLoader(np.arange(6), batch_size=2)
            >>> list(loader.epoch(3, after={"epoch": 3, "batch": 2}))
            [(array([4, 5]), {'epoch': 3, 'batch': 3})]
        """
        return Epoch(self, epoch, consumed(after, epoch))

    def rows(self, order: Any, first: int, last: int, out: list[Any] | None = None) -> list[Any]:
        """The leaves of the examples from one place of an order to another.

        Args:
            order: as from `order`; None for the examples as they stand.
            first: the first place.
            last: the place behind the last.
            out: arrays to put them into, in the dtypes of the device; None for views where these
                will do, or new arrays.
        """
        if order is None:
            views = [leaf[first:last] for leaf in self._leaves]
            return views if out is None else self._put_into(out, views)
        indices = order[first:last]
        if out is None:
            return [gather(indices, None) for gather in self._gathers]
        pairs = zip(self._gathers, self._leaves, out, strict=True)
        gathered = [
            gather(indices, target if target.dtype == leaf.dtype else None)
            for gather, leaf, target in pairs
        ]
        return self._put_into(out, gathered)

    def _put_into(self, out: list[Any], leaves: list[Any]) -> list[Any]:
        try:
            for target, leaf in zip(out, leaves, strict=True):
                if target is not leaf:
                    narrow_into(target, leaf, is_looked_at=self.is_known_to_fit)
        except DoesNotFitError as error:
            raise does_not_fit([self.tree(leaves)], "examples of ArrayLoader") from error
        return out

    @property
    def is_known_to_fit(self) -> bool:
        """Whether the device can hold all integers: they are looked at once.

        Not those of very large arrays, which may lie on a disk: they are looked at as they come.

        Raises:
            DataError: when it cannot; names the leaf and the number.
        """
        return has_64_bits() or self._fits_32

    @cached_property
    def _fits_32(self) -> bool:
        small = [leaf for leaf in self._leaves if leaf.nbytes <= MOST_LOOKED_AT]
        try:
            for leaf in small:
                check_integers(leaf)
        except DoesNotFitError as error:
            raise does_not_fit([self.arrays], "ArrayLoader(arrays)", "arrays") from error
        return all(
            leaf.dtype.kind not in "iu" or leaf.dtype.itemsize < 8 or leaf.nbytes <= MOST_LOOKED_AT
            for leaf in self._leaves
        )

    @cached_property
    def _gathers(self) -> list[Callable[[Any, Any], Any]]:
        return [_gather(leaf) for leaf in self._leaves]

    def order(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The order of the examples in an epoch, as indices ``[examples]``; from 1.

        Example:
            >>> ArrayLoader(np.zeros(4), batch_size=2).order(1)
            array([0, 1, 2, 3])
        """
        if not self.shuffle:
            return np.arange(self.num_examples)
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        return np.random.Generator(bits).permutation(self.num_examples)

    def tree(self, leaves: list[Any]) -> PyTree:
        """Leaves in the structure of the arrays."""
        return jax.tree.unflatten(self._treedef, leaves)

    @property
    def forms(self) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of one example of each leaf."""
        return [(leaf.shape[1:], leaf.dtype) for leaf in self._leaves]

    def fingerprint(self) -> dict[str, Any]:
        """What decides which batches come, as JSON: a run may be resumed with an equal one only."""
        return {
            "kind": "ArrayLoader",
            "arrays": describe(self.arrays, "arrays"),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "seed": self.seed,
            "checksum": self._checksum,
        }

    def on_device(self, placement: Placement = ONE_DEVICE) -> PyTree | None:
        """The arrays on the devices, if they are to live there; put there the first time.

        Each of several devices has all of them, and takes the rows of its part of a batch.
        """
        if placement.mesh not in self._resident:
            self._resident[placement.mesh] = self._put_on(placement)
        return self._resident[placement.mesh]

    def _put_on(self, placement: Placement) -> PyTree | None:
        is_resident = self.device_resident
        if is_resident == "auto":
            is_resident = _fits(sum(leaf.nbytes for leaf in self._leaves), placement)
        if not is_resident:
            return None
        narrow = narrowed(self.arrays, "ArrayLoader(arrays)", "arrays")
        # JAX may use the memory of a NumPy array as its own, and a user may write to that.
        return placement.put(jax.tree.map(np.array, narrow))

    @cached_property
    def _checksum(self) -> str:
        return checksum(self._leaves)

    def __repr__(self) -> str:
        return (
            f"ArrayLoader({describe(self.arrays, 'arrays')}, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle}, drop_last={self.drop_last}, seed={self.seed})"
        )


@final
class Epoch:
    """The batches of one epoch of an `ArrayLoader`, drawn one by one or several at once.

    Args:
        loader: whose epoch.
        epoch: which one, from 1.
        index: the batches that were consumed before.
    """

    def __init__(self, loader: ArrayLoader, epoch: int, index: int) -> None:
        self._loader, self._epoch, self._index = loader, epoch, index
        self._order = loader.order(epoch) if loader.shuffle else None
        self.batch_size = loader.batch_size
        self._placement = ONE_DEVICE

    def __iter__(self) -> Iterator[tuple[Batch, Cursor]]:
        return self

    def __next__(self) -> tuple[Batch, Cursor]:
        if self._index >= self._loader.num_batches:
            raise StopIteration
        first = self._index * self.batch_size
        leaves = self._loader.rows(self._order, first, first + self.batch_size)
        return self._loader.tree(leaves), self._cursors(1)[0]

    @property
    def whole_batches_left(self) -> int:
        """Batches of full size that are still to come."""
        return max(0, self._loader.num_examples // self.batch_size - self._index)

    def stack(self, steps: int, capacity: int) -> tuple[PyTree, Sequence[Cursor]]:
        """The next batches of full size in new arrays ``[capacity, batch, ...]``, with cursors.

        They have the dtypes of the device.

        Args:
            steps: how many; what stands behind them in the arrays was never written.
            capacity: for how many there is room.
        """
        size, examples = self.batch_size, steps * self.batch_size
        first = self._index * size
        empty = [
            np.empty((capacity, size, *form), device_dtype(dtype))
            for form, dtype in self._loader.forms
        ]
        flat = [leaf.reshape(capacity * size, *leaf.shape[2:])[:examples] for leaf in empty]
        self._loader.rows(self._order, first, first + examples, out=flat)
        return self._loader.tree(empty), self._cursors(steps)

    @property
    def is_known_to_fit(self) -> bool:
        """Whether the device can hold all integers; see `ArrayLoader.is_known_to_fit`."""
        return self._loader.is_known_to_fit

    def is_resident_on(self, placement: Placement) -> bool:
        """Whether the arrays live on these devices, from which `rows` then takes them."""
        self._placement = placement
        return self._loader.on_device(placement) is not None

    def rows(self, steps: int) -> tuple[Rows, Sequence[Cursor]]:
        """The next batches of full size, to be gathered on the device, with their cursors."""
        return self._rows(self.batch_size), self._cursors(steps)

    def rows_of_one(self) -> tuple[Rows, Cursor] | None:
        """The next batch likewise, of whatever size; None at the end."""
        if self._index >= self._loader.num_batches:
            return None
        left = self._loader.num_examples - self._index * self.batch_size
        return self._rows(min(left, self.batch_size)), self._cursors(1)[0]

    def _rows(self, size: int) -> Rows:
        first = self._placement.put(np.int32(self._index * self.batch_size))
        arrays = self._loader.on_device(self._placement)
        return Rows(arrays, self._order_on_device, first, size)

    @cached_property
    def _order_on_device(self) -> jax.Array:
        order = np.arange(self._loader.num_examples) if self._order is None else self._order
        return self._placement.put(order.astype(np.int32))

    def _cursors(self, steps: int) -> "_Cursors":
        begin = self._index + 1
        self._index += steps
        return _Cursors(self._epoch, range(begin, begin + steps))


class _Cursors(Sequence[Cursor]):
    """The cursors of successive batches, made when they are asked for: of hundreds one is."""

    def __init__(self, epoch: int, batches: range) -> None:
        self._epoch, self._batches = epoch, batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Cursor: ...
    @overload
    def __getitem__(self, index: slice) -> "_Cursors": ...
    def __getitem__(self, index: int | slice) -> "Cursor | _Cursors":
        if isinstance(index, slice):
            return _Cursors(self._epoch, self._batches[index])
        return {"epoch": self._epoch, "batch": self._batches[index]}


def _fits(size: int, placement: Placement) -> bool:
    """Whether so many bytes are at most a quarter of an accelerator's free memory."""
    if placement.device.platform == "cpu":
        return False
    stats = placement.device.memory_stats() or {}
    return size <= (stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)) / 4


def _check_resident(device_resident: bool | str) -> None:
    if device_resident not in (True, False, "auto"):
        raise ConfigurationError(
            f"Received ArrayLoader(device_resident={device_resident!r}); expected True, False or "
            "'auto'. Leave it out for 'auto'."
        )


def _given(value: Any) -> str:
    """An argument as a message shows it: its shape, or its class."""
    return describe_leaf(value) if hasattr(value, "shape") else type(value).__name__


def _check_whole(name: str, value: Any, minimum: int) -> None:
    if not is_whole(value, minimum):
        raise ConfigurationError(
            f"Received ArrayLoader({name}={value!r}); expected a whole number of at least "
            f"{minimum}. Write, for example, {name}={max(minimum, 32)}."
        )


def _read_only(arrays: PyTree) -> tuple[PyTree, list[Any], Any]:
    """The arrays as views that no one can write through: a batch may be a view of them."""
    _, leaves, treedef = to_host(arrays)
    views = [_read_only_view(leaf) for leaf in leaves]
    return jax.tree.unflatten(treedef, views), views, treedef


def _read_only_view(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    if not isinstance(leaf, np.ndarray):
        return leaf  # refused by the checks that follow
    view = leaf.view()
    view.flags.writeable = False
    return view


def _gather(leaf: Any) -> Callable[[Any, Any], Any]:
    """Indexing along the first axis, into an array if one is given, by the faster of two ways."""
    if leaf.flags.c_contiguous and leaf.flags.aligned:
        # Up to twice as fast as leaf[indices]; with mode="raise" it would fill a buffer first.
        return lambda indices, out: leaf.take(indices, axis=0, out=out, mode="clip")

    def gather(indices: Any, out: Any) -> Any:  # take() would copy the whole array first
        if out is None:
            return leaf[indices]
        out[...] = leaf[indices]
        return out

    return gather
