"""Accumulates the metrics of batches on the device, exactly: sums with counts, merged in any order.

A step gives a dict from name to one of four things, told apart by their form:

- a scalar: the mean over the batch, weighted by its number of examples;
- an array ``[batch, ...]``: values per example, averaged over all of them (booleans and integers
  are summed as integers, so an accuracy is exact);
- a pair ``(total, count)``: the metric is the sum of totals over the sum of counts (e.g. a loss per
  token), entry by entry where they are arrays;
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

from boltax._base._trees import describe_leaf
from boltax._base._types import ScalarMetrics
from boltax.errors import MetricsError
from boltax.metrics._means import Mean, as_mergeable, is_by_examples
from boltax.metrics._older import converted
from boltax.metrics._places import INT, Place, mean_at, packed, placed
from boltax.metrics._sums import ConfusionMatrix, Sum
from boltax.metrics._totals import IntTotal, count_of
from boltax.parallel._placement import ONE_DEVICE, Placement

_ZERO_IS_NEUTRAL = (Mean, Sum, ConfusionMatrix)


@struct.dataclass
class Metrics:
    """Metrics accumulated over some batches, on the device.

    Attributes:
        sums: dtype to sums ``[n, 2]``: of all means, and at first the number of examples.
        others: name to mergeable metric.
        batches: the number of batches seen, int32.
        left_out: the number of batches seen that count for nothing, int32: their loss or gradient
            was not finite.
        places: where in `sums` each mean is.
    """

    sums: dict[str, Any]
    others: dict[str, Any]
    batches: jax.Array
    left_out: jax.Array
    places: tuple[Place, ...] = struct.field(pytree_node=False, default=())

    @property
    def examples(self) -> IntTotal:
        """The number of examples seen; on the host ``int(examples)``."""
        return IntTotal(self.sums[INT].words[..., 0, :])

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in order."""
        return sorted([place.name for place in self.places] + list(self.others))

    @property
    def values(self) -> dict[str, Any]:
        """Name to `Mean`, or to a mergeable metric."""
        means = {place.name: mean_at(place, self.sums) for place in self.places}
        return {name: (means | self.others)[name] for name in self.names}


@dataclass(frozen=True)
class SavedMetrics:
    """Accumulated metrics out of a checkpoint, whose classes only the next batch will show.

    Attributes:
        leaves: the arrays of a `Metrics`, in the order of its pytree.
    """

    leaves: list[Any]


def rebuilt(
    metrics: Metrics | SavedMetrics, like: Metrics, placement: Placement = ONE_DEVICE
) -> Metrics:
    """The metrics with the structure of `like` (arrays or their shapes), if they are saved ones.

    Args:
        metrics: accumulated ones.
        like: the structure.
        placement: where they are put, if they are saved ones.

    Raises:
        MetricsError: when the metrics were others at the time of the checkpoint.
    """
    if isinstance(metrics, Metrics):
        return metrics
    wanted, structure = jax.tree.flatten(like)
    leaves = metrics.leaves
    if [(x.shape, x.dtype) for x in leaves] != [(x.shape, x.dtype) for x in wanted]:
        older = converted(jax.device_get(leaves), like)
        if older is None:
            raise MetricsError(
                f"Received a checkpoint whose metrics hold {_forms(leaves)}; expected "
                f"{_forms(wanted)}, as this run's metrics do: {like.names}. Go on with "
                "the metrics that the run was started with."
            )
        leaves = jax.tree.leaves(older)
    return structure.unflatten([jnp.array(leaf) for leaf in placement.put(leaves)])


def _forms(leaves: list[Any]) -> str:
    return ", ".join(map(describe_leaf, leaves))


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
        name: as_mergeable(name, value, num_examples, real) for name, value in step_metrics.items()
    }
    means = {name: value for name, value in values.items() if isinstance(value, Mean)}
    others = {name: value for name, value in values.items() if name not in means}
    places = placed(means, {name for name in means if is_by_examples(step_metrics[name])})
    sums = packed(means, count_of(num_examples if real is None else real), places)
    return Metrics(sums, others, jnp.asarray(1, jnp.int32), jnp.zeros((), jnp.int32), places)


def nothing() -> Metrics:
    """The shapes of metrics of no batch, before their names are known."""
    zero = jax.ShapeDtypeStruct((), jnp.int32)
    examples: Any = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return Metrics({INT: IntTotal(examples)}, {}, zero, zero)  # pyright: ignore[reportArgumentType]


def merge(left: Metrics, right: Metrics) -> Metrics:
    """The metrics over the batches of both.

    Raises:
        MetricsError: when the two hold different metrics, or merging one changes its shape.
    """
    if left.names != right.names:
        raise _different_names(set(left.names), set(right.names))
    if left.places != right.places:
        raise _different_forms(left.places, right.places)
    with jax.transfer_guard("allow"):  # of the constants in it, where it is not compiled
        others = {
            name: _merge_object(name, left.others[name], right.others[name]) for name in left.others
        }
        return Metrics(
            {dtype: sums + right.sums[dtype] for dtype, sums in left.sums.items()},
            others,
            left.batches + right.batches,
            left.left_out + right.left_out,
            left.places,
        )


def empty_like(metrics: Metrics) -> Metrics:
    """Metrics of no batch, with the structure of `metrics` (arrays or their shapes)."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)


def extend(metrics: Metrics, batch_metrics: Metrics) -> Metrics:
    """`merge`, where either may be of no batch: objects need have no neutral element."""
    merged = merge(metrics, batch_metrics)

    def choose(old: Any, new: Any, both: Any) -> Any:
        if isinstance(both, _ZERO_IS_NEUTRAL):  # so there is nothing to choose
            return both
        both = jax.tree.map(partial(jnp.where, batch_metrics.batches == 0), old, both)
        return jax.tree.map(partial(jnp.where, metrics.batches == 0), new, both)

    others = {
        name: choose(metrics.others[name], batch_metrics.others[name], both)
        for name, both in merged.others.items()
    }
    return dataclasses.replace(merged, others=others)


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
            parts = {f"{prefix}{name}/{key}": part for key, part in result.items()}
        else:
            parts = {prefix + name: result}
        results |= {key: _as_numbers(key, part) for key, part in parts.items()}
    return results


def _as_numbers(name: str, value: Any) -> Any:
    try:
        return to_host(value)
    except (TypeError, ValueError) as error:
        raise MetricsError(
            f"Received {type(value).__name__} from compute() of metric {name!r}; expected a "
            "number, an array, or a dict of them. Leave out what is none."
        ) from error


def plain_names(metrics: Metrics, prefix: str = "") -> list[str] | None:
    """What `compute` will name; None where metric objects may give several values each."""
    return None if metrics.others else [prefix + name for name in metrics.names]


def _computed(value: Any) -> Any:
    """Metric objects compute with jnp, on arrays that are on the host by now."""
    with jax.transfer_guard("allow"):
        return value.compute()


def to_host(value: Any) -> Any:
    """A metric's value as a Python float, or as a NumPy array where it is not a scalar."""
    array = np.asarray(jax.device_get(value) if isinstance(value, jax.Array) else value)
    return float(array) if array.ndim == 0 else array


def _merge_object(name: str, left: Any, right: Any) -> Any:
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


def _different_forms(before: tuple[Place, ...], now: tuple[Place, ...]) -> MetricsError:
    old, new = ({place.name: _form(place) for place in places} for places in (before, now))
    name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
    return MetricsError(
        f"Received metric {name!r} as {new.get(name, _OBJECT)} in one batch after "
        f"{old.get(name, _OBJECT)} in another; expected the same form in all batches. Give it one "
        "dtype and one shape, whatever the size of the batch."
    )


_OBJECT = "an object"


def _form(place: Place) -> str:
    slots = [slot for slot in (place.total, place.number) if slot is not None]
    sums = (f"{slot.dtype}[{', '.join(map(str, slot.shape))}]" for slot in slots)
    return f"sums {' and '.join(sums)}"


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
