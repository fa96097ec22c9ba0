"""Arrays in memory as a loader: any pytree of them, at the speed of plain indexing.

The order of an epoch is a pure function of (seed, epoch), so a run that is resumed, or read from
the middle of an epoch, sees what the uninterrupted one sees. May not keep a position: each
iteration has its own.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, final

import jax
import numpy as np

from boltax._trees import describe
from boltax._types import Batch, Cursor, PyTree
from boltax.data._batches import check_leaves, to_host
from boltax.data._cursor import consumed
from boltax.data._fingerprint import checksum
from boltax.errors import ConfigurationError, DataError


@final
class ArrayLoader:
    """Batches from arrays in memory; the fastest loader where the data fits.

    It is iterated like any loader: each new iteration is a further epoch, in an order of its own
    when shuffled. It is a `Source` as well: `epoch` gives any epoch from any batch on, and is not
    affected by iterations by hand. Batches that are not shuffled are read-only views of the arrays.

    Args:
        arrays: any pytree of arrays ``[examples, ...]`` that agree on their first axis: NumPy, or
            what NumPy converts (JAX arrays and tensors are converted once, here).
        batch_size: examples in a batch; the last one of an epoch may have fewer.
        shuffle: whether each epoch has an order of its own, by (`seed`, epoch).
        drop_last: whether to leave out a last batch that would have fewer examples.
        seed: decides the orders, from 0.

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

    def __init__(
        self,
        arrays: PyTree,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        _check_whole("batch_size", batch_size, minimum=1)
        _check_whole("seed", seed, minimum=0)
        self.arrays, self._leaves, self._treedef = _read_only(arrays)
        self.num_examples = check_leaves(self.arrays, "ArrayLoader(arrays)", "arrays")
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.seed = int(seed)
        self._iterations = itertools.count(1)
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

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch, each with the cursor that says that it has been consumed.

        Args:
            epoch: which one, from 1.
            after: the cursor of the last batch that was consumed; those up to it are not read.

        Example:
            >>> loader = ArrayLoader(np.arange(6), batch_size=2)
            >>> list(loader.epoch(3, after={"epoch": 3, "batch": 2}))
            [(array([4, 5]), {'epoch': 3, 'batch': 3})]
        """
        select = self._selection(epoch)
        for index in range(consumed(after, epoch), self.num_batches):
            leaves = select(index * self.batch_size, (index + 1) * self.batch_size)
            yield jax.tree.unflatten(self._treedef, leaves), {"epoch": epoch, "batch": index + 1}

    def _selection(self, epoch: int) -> Callable[[int, int], list[Any]]:
        """The function that gives the leaves of the examples from one place to another."""
        if not self.shuffle:
            return lambda first, last: [leaf[first:last] for leaf in self._leaves]
        order = self.order(epoch)
        gathers = [_gather(leaf) for leaf in self._leaves]
        return lambda first, last: [gather(order[first:last]) for gather in gathers]

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

    @cached_property
    def _checksum(self) -> str:
        return checksum(self._leaves)

    def __repr__(self) -> str:
        return (
            f"ArrayLoader({describe(self.arrays, 'arrays')}, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle}, drop_last={self.drop_last}, seed={self.seed})"
        )


def _check_whole(name: str, value: Any, minimum: int) -> None:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < minimum:
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


def _gather(leaf: Any) -> Callable[[Any], Any]:
    """Indexing along the first axis by the faster of two ways."""
    if leaf.flags.c_contiguous and leaf.flags.aligned:
        return lambda indices: leaf.take(indices, axis=0)  # up to twice as fast as leaf[indices]
    return lambda indices: leaf[indices]  # take() would copy the whole array first
