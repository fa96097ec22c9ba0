"""Batches as the step needs them: pytrees of host arrays that share their first axis.

Everything is checked when a batch looks new; comparing shapes and dtypes is all that the others
cost (about two microseconds). May not read loaders: it is handed one batch at a time.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.tree_util import SequenceKey

from boltax._base._trees import common_size, describe, describe_leaf, path_name
from boltax._base._types import Batch
from boltax.data._arrays import is_a, is_numeric, to_array
from boltax.errors import DataError


def to_host(batch: Batch) -> tuple[Batch, list[Any], Any]:
    """The batch with arrays for leaves, its leaves, and its tree structure.

    Dataclasses that JAX does not know are registered with it as pytrees, once, all fields being
    data; mappings that it does not know (such as the batches of tokenizers) become dicts. What has
    no array form stays as it is, for `check_leaves` to name.
    """
    leaves, treedef = _flattened(batch)
    if all(type(leaf) is np.ndarray and leaf.dtype.isnative for leaf in leaves):
        return batch, leaves, treedef
    while any(_is_container(leaf) for leaf in leaves):
        batch = jax.tree.map(_as_node, batch)
        leaves, treedef = _flattened(batch)
    leaves = [to_array(leaf) for leaf in leaves]
    return jax.tree.unflatten(treedef, leaves), leaves, treedef


def _flattened(batch: Batch) -> tuple[list[Any], Any]:
    try:
        return jax.tree.flatten(batch)
    except (TypeError, ValueError) as error:
        if (keys := _mixed_keys(batch)) is None:
            raise
        raise DataError(
            f"Received a batch with a dict with the keys {', '.join(map(repr, keys))}, of types "
            f"{', '.join(sorted({type(key).__name__ for key in keys}))}; expected keys that can be "
            "sorted, as JAX sorts them. Use text for all keys: {str(key): array for key, array in "
            "batch.items()}."
        ) from error


def _mixed_keys(tree: Any) -> list[Any] | None:
    """The keys of the first dict, in containers of Python, whose keys cannot be sorted."""
    if isinstance(tree, dict):
        try:
            sorted(tree)
        except TypeError:
            return list(tree)
        tree = list(tree.values())
    parts: Any = tree if isinstance(tree, list | tuple) else ()
    return next((keys for part in parts if (keys := _mixed_keys(part)) is not None), None)


def _is_container(leaf: object) -> bool:
    is_dataclass = dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)
    return is_dataclass or is_mapping(leaf)


def is_mapping(leaf: Any) -> bool:
    """Whether something is a mapping, be it one that Python does not know as such."""
    if isinstance(leaf, Mapping):
        return True
    return is_a(leaf, "ml_collections", "ConfigDict")


def _as_node(leaf: Any) -> Any:
    if is_mapping(leaf):
        return {key: leaf[key] for key in leaf}
    if _is_container(leaf):
        _register_dataclass(type(leaf))
    return leaf


def _register_dataclass(cls: type) -> None:
    fields = [field for field in dataclasses.fields(cls) if field.init]
    static = [field.name for field in fields if field.metadata.get("static", False)]
    data = [field.name for field in fields if field.name not in static]
    jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=static)


def check_leaves(batch: Batch, where: str, root: str = "batch") -> int:
    """Checks that every leaf is a numeric array and that all agree on their first axis.

    Args:
        batch: as `to_host` gives it.
        where: what the batch is, for the message: ``"batch 3 of epoch 1 of train_loader"``.
        root: the name that the leaves' paths begin with.

    Returns:
        The number of examples.

    Raises:
        DataError: naming the leaf that cannot be used, or the leaves that disagree.
    """
    _check_usable(batch, where, root)
    size = common_size(batch)
    if not size or any(not leaf.ndim for leaf in jax.tree.leaves(batch)):
        raise _no_size(batch, where, root)
    return size


def _check_sizes(batch: Batch, where: str) -> None:
    """Checks that a batch has examples, and that each number in it has a name.

    Leaves may differ on their first axis, as those of a graph do.
    """
    flat = jax.tree_util.tree_leaves_with_path(batch)
    numbers = [path for path, leaf in flat if not leaf.ndim]
    is_bare = any(not path or isinstance(path[-1], SequenceKey) for path in numbers)
    if is_bare or len(numbers) == len(flat) or common_size(batch) == 0:
        raise _no_size(batch, where)


def _check_usable(batch: Batch, where: str, root: str = "batch") -> None:
    """Checks that every leaf is a numeric array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if hint := _why_unusable(leaf):
            raise DataError(
                f"Received {where} with {path_name(path, root)}: {describe_leaf(leaf)}; expected a "
                f"pytree of numeric arrays. {hint}"
            )


def _no_size(batch: Batch, where: str, root: str = "batch") -> DataError:
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(batch)}
    return DataError(
        f"Received {where} with {describe(batch, root)}; expected at least one array, all with the "
        f"same number of examples (at least 1) on their first axis. {_axis_hint(sizes)}"
    )


def _axis_hint(sizes: set[int | None]) -> str:
    if None in sizes:
        return (
            "A leaf without axes is a single number: lists and tuples are containers in JAX, so "
            "write np.asarray([...]) for numbers, x[None] to add the axis of examples, and keep "
            "constants out of the batch."
        )
    if 0 in sizes:
        return "Leave out batches without examples."
    return (
        "Give every leaf the shape [batch, ...], and keep constants out of the batch (use hparams "
        "or attributes)."
    )


def _why_unusable(leaf: Any) -> str:
    """What to write instead of this leaf; empty where it can be used."""
    if isinstance(leaf, jax.Array):
        return ""
    if isinstance(leaf, np.ndarray) and not isinstance(leaf, np.ma.MaskedArray):
        return "" if is_numeric(leaf.dtype) else _dtype_hint(leaf.dtype)
    if isinstance(leaf, str | bytes):
        return (
            "Leave text out of the batch, or encode it as integers; a field of a dataclass that is "
            'always the same may be static: field(metadata={"static": True}).'
        )
    if is_a(leaf, "tensorflow", "RaggedTensor") or is_a(leaf, "tensorflow", "SparseTensor"):
        return "Make it dense in the data set: .map(lambda x: x.to_tensor()) or tf.sparse.to_dense."
    if is_a(leaf, "torch", "Tensor"):
        return "Make it dense: x.to_dense(), or torch.nested.to_padded_tensor(x, 0.0)."
    return (
        "Put the arrays of the object into a dict, tuple or dataclass, or register its class as a "
        "pytree."
    )


def _dtype_hint(dtype: Any) -> str:
    if dtype.kind == "O":
        return "Pad rows of unequal length, which make such arrays, and encode text as integers."
    if dtype.kind in "SU":
        return "Leave text out of the batch, or encode it as integers."
    return "Convert it, e.g. with .astype(np.float32)."


@dataclasses.dataclass(frozen=True)
class _Form:
    """What all batches of a loader have in common: structure, dtypes and numbers of axes."""

    treedef: Any
    kinds: dict[str, str]  # by the leaf's path

    @classmethod
    def of(cls, batch: Batch, treedef: Any) -> "_Form":
        leaves = jax.tree_util.tree_leaves_with_path(batch)
        kinds = {path_name(path): f"{x.ndim}-d {x.dtype}" for path, x in leaves}
        return cls(treedef, kinds)

    def first_difference(self, other: "_Form") -> str:
        """The first change from this form to the other one, in words; empty when they agree."""
        for path in {**self.kinds, **other.kinds}:
            old, new = self.kinds.get(path, _NOTHING), other.kinds.get(path, _NOTHING)
            if old != new:
                return f"{path} changed from {old} to {new}"
        if self.treedef != other.treedef:
            return (
                "the containers, or static fields in them, changed from "
                f"{self.treedef} to {other.treedef}"
            )
        return ""


_NOTHING = "nothing (missing, or None)"


class BatchCheck:
    """Normalises and checks the batches of one loader, through all its epochs.

    It assigns to itself to remember two things: the form of the first batch, which every other must
    have, and the signature of the last one, which spares the checks to a batch that looks the same.

    Args:
        name: the loader, as messages name it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._form: _Form | None = None
        self._last: tuple[Any, list[Any]] | None = None

    def __call__(self, batch: Batch, epoch: int, number: int) -> Batch:
        """The batch with arrays for leaves.

        Args:
            batch: as the loader gave it.
            epoch: the epoch, from 1, for messages.
            number: the batch's number in the epoch, from 1, for messages.

        Raises:
            DataError: when a leaf is no numeric array, a number has no name, or
                structure, dtypes or numbers of axes differ from those of the first batch. Whether
                leaves agree on their first axis is for those to say who count the examples.
        """
        batch, leaves, treedef = to_host(batch)
        shapes = [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves]
        if (treedef, shapes) == self._last:
            return batch
        where = f"batch {number} of epoch {epoch} of {self._name}"
        _check_usable(batch, where)
        _check_sizes(batch, where)
        self._check_form(_Form.of(batch, treedef), where)
        self._last = (treedef, shapes)
        return batch

    def _check_form(self, form: _Form, where: str) -> None:
        if self._form is None:
            self._form = form
        elif difference := self._form.first_difference(form):
            raise DataError(
                f"Received {where}, in which {difference}; expected every batch to have the "
                "structure, dtypes and numbers of axes of the first one (sizes may vary). Make the "
                "loader give the same keys with the same dtypes each time, e.g. with "
                "x.astype(np.float32), and a number that changes as a field that is not static."
            )
