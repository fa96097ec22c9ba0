"""Questions about pytrees of arrays: paths, shapes, sizes. Knows nothing of training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._types import Batch, PyTree
from boltax.errors import DataError


def path_name(path: tuple[Any, ...], root: str = "batch") -> str:
    """A leaf's place as Python source: ``batch['image'][0]``."""
    return root + jax.tree_util.keystr(path)


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A leaf's place as plain names: keys, attributes and indices, the outermost first."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def replaced_paths(before: PyTree, after: PyTree) -> frozenset[tuple[str, ...]]:
    """The places of leaves that are other objects in one tree than in another of its structure."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(before), strict=True)
    return frozenset(path_names(path) for (path, new), old in pairs if new is not old)


def path_text(path: tuple[Any, ...]) -> str:
    """A leaf's place as patterns see it: ``encoder/Dense_0/kernel``."""
    return "/".join(path_names(path))


def describe(tree: PyTree, root: str = "batch", most: int = 12) -> str:
    """Every leaf's place, dtype and shape: ``batch[0]: float32[32, 28, 28, 1], ...``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [f"{path_name(path, root)}: {describe_leaf(leaf)}" for path, leaf in leaves[:most]]
    if len(leaves) > most:
        parts.append(f"... ({len(leaves) - most} more)")
    return ", ".join(parts) or f"{root}: no arrays"


def form_of(tree: PyTree) -> tuple[Any, tuple[tuple[Any, Any], ...]]:
    """The structure of a tree with the shape and dtype of each array: equal for trees alike.

    Example:
        >>> form_of([jnp.ones(3)]) == form_of([jnp.zeros(3)]), form_of([1.0 * jnp.ones(2)])[1]
        (True, (((2,), dtype('float32')),))
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def describe_leaf(leaf: object) -> str:
    """A leaf's dtype and shape, ``float32[32, 10]``, or its type where it is no array."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return type(leaf).__name__
    return f"{dtype}[{', '.join(map(str, shape))}]"


def num_examples(batch: Batch) -> int:
    """The number of examples in a batch: the length of the first axis, which all leaves share.

    Numbers that have a name, as an entry of a dict or a field, have no examples.

    Raises:
        DataError: when the batch has no array, a leaf has no axis and no name, or leaves disagree
            on the first one.
    """
    size = common_size(batch)
    if size is not None:
        return size
    raise DataError(
        f"Received a batch with {describe(batch)}; expected arrays that agree on their first axis, "
        f"the examples. Give every leaf the shape [batch, ...]. {COUNT_OTHERWISE}"
    )


COUNT_OTHERWISE = (
    "Where examples are something else, as the graphs of a batch are, say how they are counted: "
    "have the loss and each metric be a pair (total, count), or write def batch_size_of(self, "
    "batch) in the trainer, which returns their number."
)


def common_size(batch: Batch) -> int | None:
    """The length of the first axis of all leaves, of numbers with a name aside; None for others."""
    shapes = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[0] if shape else -1 for shape in shapes}
    if -1 in sizes:
        is_named = all(
            bool(path) and not isinstance(path[-1], jax.tree_util.SequenceKey)
            for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
            if not np.ndim(leaf)
        )
        sizes = sizes - {-1} if is_named else sizes
    return int(sizes.pop()) if len(sizes) == 1 and -1 not in sizes else None


def examples_or_one(batch: Batch) -> int:
    """The number of examples in a batch; a batch whose leaves do not agree is one, as a graph is.

    Example:
        >>> graph = {"nodes": np.zeros((5, 3)), "edges": np.zeros((2, 8), np.int32)}
        >>> examples_or_one(graph), examples_or_one(np.zeros((4, 3)))
        (1, 4)
    """
    size = common_size(batch)
    return 1 if size is None else size


def tree_bytes(tree: PyTree) -> int:
    """The bytes that the arrays of a tree hold."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def wide(dtype: Any) -> Any:
    """The dtype in which to add up numbers of a floating-point dtype: at least float32."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def is_deleted(tree: PyTree) -> bool:
    """Whether a compiled function was given the memory of any array of a tree."""
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(tree))


def choose(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """One of two trees, leaf by leaf; traced. Leaves that are the same object stay as they are."""

    def one(left: Any, right: Any) -> Any:
        return left if left is right else jnp.where(condition, left, right)

    return jax.tree.map(one, yes, no)
