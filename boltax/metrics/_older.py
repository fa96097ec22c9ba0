"""Accumulated metrics out of checkpoints of earlier versions, which had sums of one word."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from boltax.metrics._means import Mean
from boltax.metrics._places import INT, Place, packed
from boltax.metrics._sums import ConfusionMatrix, Sum, older_matrix
from boltax.metrics._totals import Total, host_total, is_float

_NODES = (Sum, ConfusionMatrix)


class _MisfitError(Exception):
    """An array that the metric has none for."""


def converted(leaves: list[Any], like: Any) -> tuple[Any, ...] | None:
    """The fields of `Metrics` like others, of arrays that an earlier version has saved.

    Nothing is lost: what was one word becomes two.

    Args:
        leaves: the arrays, on the host: of each metric by its name, and the numbers of examples,
            of batches, and of those left out.
        like: metrics of today, arrays or their shapes.

    Returns:
        The fields but `places`, in NumPy; None where the arrays are those of other metrics.
    """
    left, places = iter(leaves), {place.name: place for place in like.places}
    members = like.batches.shape
    means, others = dict[str, Mean](), dict[str, Any]()
    try:
        for name in like.names:
            if name in places:
                means[name] = _mean(places[name], members, next(left), next(left))
            else:
                others[name] = _object(like.others[name], left)
        examples, batches, left_out = (_fitting(np.asarray(next(left)), members) for _ in range(3))
    except (_MisfitError, StopIteration):
        return None
    if next(left, None) is not None:
        return None
    counts = (means[place.name].count for place in like.places if place.number is None)
    if any((count.value() != examples).any() for count in counts):
        return None
    sums = packed(means, host_total(examples), like.places, np.concatenate)
    return sums, others, batches, left_out


def _object(like: Any, left: Iterator[Any]) -> Any:
    nodes, structure = jax.tree.flatten(like, is_leaf=lambda node: isinstance(node, _NODES))
    return structure.unflatten([_node(node, left) for node in nodes])


def _node(like: Any, left: Iterator[Any]) -> Any:
    leaf = np.asarray(next(left))
    if isinstance(like, Sum):
        words = like.total.words
        return Sum(_total(words.dtype, words.shape[:-1], leaf))
    if isinstance(like, ConfusionMatrix):
        return older_matrix(_fitting(leaf, like.counts.words.shape[:-1]))
    return _fitting(leaf, like.shape)


def _mean(place: Place, members: tuple[int, ...], total: Any, count: Any) -> Mean:
    """A mean; one of several numbers per example was as many means, and is that of all of them."""
    shape, total, count = (*members, *place.total.shape), np.asarray(total), np.asarray(count)
    if total.shape != shape and total.shape[: len(shape)] == shape == count.shape:
        exact = np.float64 if is_float(total.dtype) else np.int64
        rows = total.astype(exact).reshape(*shape, -1)
        total, count = rows.sum(-1), count.astype(np.int64) * rows.shape[-1]
    dtype, number = (place.number.dtype, place.number.shape) if place.number else (INT, ())
    return Mean(_total(place.total.dtype, shape, total), _total(dtype, (*members, *number), count))


def _total(dtype: Any, shape: tuple[int, ...], values: Any) -> Total:
    if is_float(values.dtype) != is_float(np.dtype(dtype)):
        raise _MisfitError
    return host_total(_fitting(values, shape), np.dtype(dtype))


def _fitting(values: Any, shape: tuple[int, ...]) -> Any:
    if values.shape != shape:
        raise _MisfitError
    return values
