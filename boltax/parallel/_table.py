"""How the arrays of a run lie on its devices, as a table for people."""

import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from boltax._base._trees import path_text
from boltax._base._types import PyTree
from boltax.parallel._parallel import names_in
from boltax.parallel._placement import Placement
from boltax.parallel._rules import nbytes_of

MOST_ROWS = 40


def bytes_on_each(tree: PyTree) -> int:
    """The bytes that one device holds of arrays, or of forms that say where they lie."""
    return sum(_bytes_of_part(leaf) for leaf in jax.tree.leaves(tree))


def table(variables: PyTree, placement: Placement, most: int | None = None) -> str:
    """Each array of a model: its shape, how it is divided, its bytes on each device.

    Args:
        variables: arrays or forms, by collection.
        placement: where they lie; one device has no table.
        most: at most so many arrays, the largest ones; None for all.

    Returns:
        Text that ends with a line break, or nothing.
    """
    if placement.mesh is None:
        return ""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    kept = leaves
    if most is not None and len(leaves) > most:
        largest = sorted(leaves, key=lambda pair: -nbytes_of(pair[1]))[:most]
        chosen = {path for path, _ in largest}
        kept = [(path, leaf) for path, leaf in leaves if path in chosen]
    rows = [
        (
            path_text(path),
            ", ".join(map(str, leaf.shape)),
            _divided(leaf),
            f"{_bytes_of_part(leaf):,}",
        )
        for path, leaf in kept
    ]
    if len(leaves) > len(kept):
        rest = len(leaves) - len(kept)
        rows.append((f"... {rest} smaller arrays", "", "", ""))
    whole = sum(nbytes_of(leaf) for _, leaf in leaves)
    rows.append(("all", "", f"of {whole:,} bytes", f"{bytes_on_each(variables):,}"))
    head = ("array", "shape", "divided by", "bytes on each device")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in (head, *rows)
    ]
    return "\n".join([described(placement), "", *lines]) + "\n"


def described(placement: Placement) -> str:
    """The devices of a run in a line.

    Example:
        >>> described(Placement())
        'On one device.'
    """
    if placement.mesh is None:
        return "On one device."
    axes = " x ".join(f"{name}={size}" for name, size in placement.mesh.shape.items())
    kind, number = placement.device.device_kind, placement.num_devices
    parts = f"batches in {placement.parts} parts" if placement.parts > 1 else "batches whole"
    return f"On {number} device{'s' * (number > 1)} ({kind}), {axes}; {parts}."


def lies(tree: PyTree) -> dict[str, str]:
    """By what the arrays of a tree are divided, by their path; those that are not are left out.

    Example:
        >>> lies({"w": jax.numpy.ones(3)})
        {}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {path_text(path): _divided(leaf) for path, leaf in leaves}
    return {name: axes for name, axes in found.items() if axes != _NOTHING}


_NOTHING = "nothing"


def _divided(leaf: Any) -> str:
    """By what each dimension is divided: ``-, model``; nothing where each device has the whole."""
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.is_fully_replicated:
        return _NOTHING
    axes: list[Any] = [*sharding.spec, *(None,) * (len(leaf.shape) - len(sharding.spec))]
    return ", ".join("+".join(names_in(axis)) or "-" for axis in axes)


def _bytes_of_part(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return nbytes_of(leaf)
    return math.prod(sharding.shard_shape(tuple(leaf.shape))) * int(leaf.dtype.itemsize)
