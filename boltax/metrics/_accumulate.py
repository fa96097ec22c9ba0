"""Accumulates the metrics of batches on the device, exactly: sums with counts, merged in any order.

A step gives a dict from name to one of four things, told apart by their form:

- a scalar: the mean over the batch, weighted by its number of examples;
- an array ``[batch, ...]``: a value per example, averaged over all examples (booleans and integers
  are summed as integers, so an accuracy is exact);
- a pair ``(total, count)``: the metric is the sum of totals over the sum of counts (e.g. a loss per
  token);
- an object with ``merge(other)`` and ``compute()`` that is a pytree: clu's and google-metrax's
  metrics.

    >>> import jax.numpy as jnp
    >>> batch = {"acc": jnp.array([True, False, True]), "loss": jnp.float32(0.5)}
    >>> compute(start(batch, num_examples=3))
    {'acc': 0.666..., 'loss': 0.5}

All but `compute` is pure and may be traced. Nothing here knows what the metrics are for.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from boltax._base._trees import describe_leaf, wide
from boltax._base._types import ScalarMetrics
from boltax.errors import MetricsError


@struct.dataclass
class Mean:
    """A weighted mean under way."""

    total: jax.Array
    count: jax.Array

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both."""
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> Any:
        """Total over count; in NumPy, at double precision."""
        total, count = np.asarray(self.total, np.float64), np.asarray(self.count, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / count


@struct.dataclass
class Metrics:
    """Metrics accumulated over some batches, on the device.

    Attributes:
        values: name to `Mean`, or to a mergeable metric.
        examples: the number of examples seen, int32.
        batches: the number of batches seen, int32.
        left_out: the number of batches seen that count for nothing, int32: their loss or gradient
            was not finite.
    """

    values: dict[str, Any]
    examples: jax.Array
    batches: jax.Array
    left_out: jax.Array


@dataclass(frozen=True)
class SavedMetrics:
    """Accumulated metrics out of a checkpoint, whose classes only the next batch will show.

    Attributes:
        leaves: the arrays of a `Metrics`, in the order of its pytree.
    """

    leaves: list[Any]


def rebuilt(metrics: Metrics | SavedMetrics, like: Metrics) -> Metrics:
    """The metrics with the structure of `like` (arrays or their shapes), if they are saved ones.

    Raises:
        MetricsError: when the metrics were others at the time of the checkpoint.
    """
    if isinstance(metrics, Metrics):
        return metrics
    wanted, structure = jax.tree.flatten(like)
    if [(x.shape, x.dtype) for x in metrics.leaves] != [(x.shape, x.dtype) for x in wanted]:
        raise MetricsError(
            f"Received a checkpoint whose metrics hold {_forms(metrics.leaves)}; expected "
            f"{_forms(wanted)}, as this run's metrics do: {sorted(like.values)}. Go on with the "
            "metrics that the run was started with."
        )
    return structure.unflatten([jnp.array(leaf) for leaf in jax.device_put(metrics.leaves)])


def _forms(leaves: list[Any]) -> str:
    return ", ".join(map(describe_leaf, leaves))


def are_per_example(step_metrics: Mapping[str, Any], num_examples: int) -> bool:
    """Whether all metrics of a batch have a value for each example, so that some can be left out.

    Example:
        >>> are_per_example({"loss": jnp.zeros(3), "acc": jnp.zeros(3, bool)}, num_examples=3)
        True
    """
    values = step_metrics.values() if isinstance(step_metrics, Mapping) else ()
    return all(
        isinstance(value, jax.Array) and value.shape[:1] == (num_examples,) for value in values
    )


def start(
    step_metrics: Mapping[str, Any], num_examples: int, real: jax.Array | None = None
) -> Metrics:
    """The metrics of a single batch in accumulated form.

    Args:
        step_metrics: what a step returned.
        num_examples: the batch's number of examples.
        real: how many of them count, int32, where the others only fill the batch up; for metrics
            with a value for each example (`are_per_example`).

    Raises:
        MetricsError: for a value that is none of the four forms.
    """
    if not isinstance(step_metrics, Mapping):
        raise MetricsError(
            f"Received metrics of type {type(step_metrics).__name__}; expected a dict from name to "
            "value, e.g. "
            '{"acc": logits.argmax(-1) == labels}.'
        )
    values = {
        name: _as_mergeable(name, value, num_examples, real) for name, value in step_metrics.items()
    }
    count = jnp.asarray(num_examples if real is None else real, jnp.int32)
    return Metrics(values, count, jnp.asarray(1, jnp.int32), jnp.zeros((), jnp.int32))


def merge(left: Metrics, right: Metrics) -> Metrics:
    """The metrics over the batches of both.

    Raises:
        MetricsError: when the two hold different metrics, or merging one changes its shape.
    """
    if left.values.keys() != right.values.keys():
        raise _different_names(set(left.values), set(right.values))
    values = {
        name: _merge_value(name, left.values[name], right.values[name]) for name in left.values
    }
    return Metrics(
        values,
        left.examples + right.examples,
        left.batches + right.batches,
        left.left_out + right.left_out,
    )


def empty_like(metrics: Metrics) -> Metrics:
    """Metrics of no batch, with the structure of `metrics` (arrays or their shapes)."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)


def extend(metrics: Metrics, batch_metrics: Metrics) -> Metrics:
    """`merge`, where either may be of no batch: objects need have no neutral element."""
    merged = merge(metrics, batch_metrics)

    def choose(old: Any, new: Any, both: Any) -> Any:
        if isinstance(both, Mean):  # zero is neutral here, so there is nothing to choose
            return both
        both = jax.tree.map(partial(jnp.where, batch_metrics.batches == 0), old, both)
        return jax.tree.map(partial(jnp.where, metrics.batches == 0), new, both)

    values = {
        name: choose(metrics.values[name], batch_metrics.values[name], both)
        for name, both in merged.values.items()
    }
    return dataclasses.replace(merged, values=values)


def pack(metrics: Metrics) -> dict[str, jax.Array]:
    """The numbers of metrics in one vector for each dtype: few arrays to bring to the host."""
    vectors: dict[str, list[jax.Array]] = {}
    for leaf in jax.tree.leaves(metrics):
        vectors.setdefault(jnp.dtype(leaf.dtype).name, []).append(jnp.ravel(leaf))
    return {name: jnp.concatenate(parts) for name, parts in vectors.items()}


def unpack(vectors: Mapping[str, Any], like: Metrics) -> list[Metrics]:
    """Metrics with the structure of `like` that were packed, on the host: one for each row.

    Args:
        vectors: of each dtype ``[rows, numbers]``.
        like: arrays, or their shapes.

    Example:
        >>> metrics = start({"loss": jnp.float32(0.5)}, num_examples=3)
        >>> [row] = unpack({name: v[None] for name, v in pack(metrics).items()}, like=metrics)
        >>> compute(row)
        {'loss': 0.5}
    """
    host: dict[str, Any] = jax.device_get(dict(vectors))
    leaves, structure = jax.tree.flatten(like)
    used, parts = dict.fromkeys(host, 0), list[Any]()
    for leaf in leaves:
        name = jnp.dtype(leaf.dtype).name
        begin, used[name] = used[name], used[name] + leaf.size
        parts.append(host[name][:, begin : used[name]].reshape(-1, *leaf.shape))
    return [structure.unflatten(row) for row in zip(*parts, strict=True)]


def compute(metrics: Metrics, prefix: str = "") -> ScalarMetrics:
    """The values of accumulated metrics, on the host: floats, or NumPy arrays where not scalar.

    Args:
        metrics: accumulated over at least one batch; if all were left out there are no values.
        prefix: put before each name, e.g. ``"val/"``.
    """
    host: Metrics = jax.device_get(metrics)
    results: ScalarMetrics = {}
    if not host.batches:
        return results
    for name, value in host.values.items():
        result = value.compute() if isinstance(value, Mean) else _computed(value)
        if isinstance(result, Mapping):
            results |= {f"{prefix}{name}/{key}": to_host(part) for key, part in result.items()}
        else:
            results[prefix + name] = to_host(result)
    return results


def plain_names(metrics: Metrics, prefix: str = "") -> list[str] | None:
    """What `compute` will name; None where metric objects may give several values each."""
    if all(isinstance(value, Mean) for value in metrics.values.values()):
        return [prefix + name for name in metrics.values]
    return None


def _computed(value: Any) -> Any:
    """Metric objects compute with jnp, on arrays that are on the host by now."""
    with jax.transfer_guard("allow"):
        return value.compute()


def to_host(value: Any) -> Any:
    """A metric's value as a Python float, or as a NumPy array where it is not a scalar."""
    array = np.asarray(jax.device_get(value) if isinstance(value, jax.Array) else value)
    return float(array) if array.ndim == 0 else array


def _as_mergeable(name: str, value: Any, num_examples: int, real: jax.Array | None) -> Any:
    if not isinstance(name, str):
        raise MetricsError(f"Received a metric named {name!r}; expected a string.")
    if callable(getattr(value, "merge", None)) and callable(getattr(value, "compute", None)):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Mean(*(_number(name, part) for part in value))
    array = _number(name, value)
    if array.ndim == 0:
        dtype = _sum_dtype(array.dtype)
        return Mean(array.astype(dtype) * num_examples, jnp.asarray(num_examples, jnp.int32))
    if array.shape[0] != num_examples:
        raise MetricsError(
            f"Received metric {name!r} with {describe_leaf(array)} for a batch of {num_examples} "
            f"examples; expected a scalar, an array [{num_examples}, ...] with a value per "
            "example, a pair (total, count), or an object with merge() and compute(). Reduce the "
            "other axes first."
        )
    if real is not None:
        is_real = jnp.arange(num_examples) < real
        is_real = is_real.reshape(-1, *(1,) * (array.ndim - 1))
        array = jnp.where(is_real, array, jnp.zeros_like(array))
    count = jnp.asarray(num_examples if real is None else real, jnp.int32)
    return Mean(jnp.sum(array, axis=0, dtype=_sum_dtype(array.dtype)), count)


def _number(name: str, value: Any) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except TypeError:
        array = None
    if array is None or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == jnp.bool_):
        raise MetricsError(
            f"Received metric {name!r} of type {type(value).__name__}; expected numbers: a scalar, "
            "an array [batch, ...], a pair (total, count), or an object with merge() and compute()."
        )
    return array


def _sum_dtype(dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.int32
    return wide(dtype)


def _merge_value(name: str, left: Any, right: Any) -> Any:
    merged = left.merge(right)
    before, after = (
        [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (right, merged)
    )
    if before != after:
        raise MetricsError(
            f"Received metric {name!r} ({type(right).__name__}) whose arrays change from shapes "
            f"{before} to {after} when merged; expected a metric of fixed size, which can be "
            "accumulated on the device. Use one with a fixed state (such as metrax.AUCROC), or "
            "return the values per example and compute it from predict_model."
        )
    return merged


def _different_names(before: set[str], now: set[str]) -> MetricsError:
    changes = [
        f"{word} {sorted(names)}"
        for word, names in (("missing", before - now), ("new", now - before))
        if names
    ]
    return MetricsError(
        f"Received metrics {sorted(now)} after metrics {sorted(before)} ({', '.join(changes)}); "
        "expected the same names at each step. Return every metric at each step, and decide on "
        "names by `train` only."
    )
