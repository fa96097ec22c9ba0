"""What records say of each layer: norms, ratios and histograms, of the step of the record. Traced.

They are computed at those steps alone, in one branch of the program. Between two records they are
sums of nothing; as pairs ``(value, 1 or 0)`` they are what the accumulation of metrics takes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from boltax._base._trees import path_names
from boltax._base._types import PyTree, StepMetrics
from boltax._step._metric_names import check_names
from boltax._step._state import TrainState
from boltax.optim._adapt import optax_promotion
from boltax.optim._by_path import trained_in

PREFIX = "layers/"
HISTOGRAMS = f"{PREFIX}histograms/"
BINS = 64


class Watched(NamedTuple):
    """What is looked at.

    Attributes:
        every: steps between two records.
        has_histograms: whether values are counted, beside their norms.
    """

    every: int
    has_histograms: bool


Layers = Mapping[str, list[jax.Array]]
"""The arrays of each layer."""


def layer_metrics(
    watched: Watched, before: TrainState, after: TrainState, gradients: PyTree, metrics: StepMetrics
) -> StepMetrics:
    """The metrics of a step, with those of its layers.

    Args:
        watched: see `Watched`.
        before: the state before the step.
        after: the state after it.
        gradients: as the optimizer gets them.
        metrics: the others.
    """
    with optax_promotion():
        trees = {
            "params": after.params,
            "gradients": gradients,
            "updates": jax.tree.map(jnp.subtract, after.params, before.params),
        }
    layers = {name: _layers(trained_in(before.tx, tree)) for name, tree in trees.items()}
    find = partial(_found, has_histograms=watched.has_histograms)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(find, layers))
    is_record = jnp.asarray(before.step + 1) % watched.every == 0
    found = lax.cond(_any(is_record), find, lambda _: nothing, layers)
    count = is_record.astype(jnp.int32)
    own = {name: (jnp.where(is_record, value, 0), count) for name, value in found.items()}
    return {**metrics, **check_names(own, "LoopOptions(log_norms=...)", metrics)}


@custom_vmap
def _any(condition: jax.Array) -> jax.Array:
    """A condition, of members in common: whether it holds for one. So there is still a branch."""
    return condition


@_any.def_vmap
def _(_: int, in_batched: list[bool], condition: jax.Array) -> tuple[jax.Array, bool]:
    return (condition.any() if in_batched[0] else condition), False


def _layers(tree: PyTree) -> Layers:
    """The arrays of a tree by the modules that hold them, ``encoder/Dense_0``."""
    layers: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *module, name = path_names(path)
        real = jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf
        layers.setdefault("/".join(module) or name, []).append(real.astype(jnp.float32))
    return layers


def _found(trees: Mapping[str, Layers], *, has_histograms: bool) -> dict[str, jax.Array]:
    norms = {
        kind: {name: _norm(leaves) for name, leaves in layers.items()}
        for kind, layers in trees.items()
    }
    found: dict[str, jax.Array] = {}
    for name, norm in norms["params"].items():
        update = norms["updates"][name]
        found[f"{PREFIX}param_norm/{name}"] = norm
        found[f"{PREFIX}grad_norm/{name}"] = norms["gradients"][name]
        found[f"{PREFIX}update_norm/{name}"] = update
        found[f"{PREFIX}update_ratio/{name}"] = update / norm
    if has_histograms:
        for kind, layers in trees.items():
            for name, leaves in layers.items():
                found[f"{HISTOGRAMS}{kind}/{name}"] = _histogram(leaves)
    return found


def _norm(leaves: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(sum((jnp.sum(leaf * leaf) for leaf in leaves), jnp.float32(0)))


def _histogram(leaves: list[jax.Array]) -> jax.Array:
    """Counts of the finite values in `BINS` bins, then their limits, sum, and sum of squares."""
    finite = [jnp.isfinite(leaf) for leaf in leaves]
    pairs = list(zip(leaves, finite, strict=True))
    low = jnp.stack([jnp.min(x, where=is_in, initial=jnp.inf) for x, is_in in pairs]).min()
    high = jnp.stack([jnp.max(x, where=is_in, initial=-jnp.inf) for x, is_in in pairs]).max()
    shares = jnp.arange(1, BINS, dtype=jnp.float32) / BINS
    begin, end = jnp.where(low == high, low - 0.5, low), jnp.where(low == high, high + 0.5, high)
    inner = begin + (end - begin) * shares
    below = sum((_below(x, is_in, inner) for x, is_in in pairs), jnp.zeros(BINS - 1, jnp.int32))
    number = sum((is_in.sum(dtype=jnp.int32) for is_in in finite), jnp.int32(0))
    steps = jnp.concatenate([jnp.zeros(1, jnp.int32), below, number[None]])
    total = sum((jnp.sum(x, where=is_in) for x, is_in in pairs), jnp.float32(0))
    squares = sum((jnp.sum(x * x, where=is_in) for x, is_in in pairs), jnp.float32(0))
    counts = jnp.diff(steps).astype(jnp.float32)
    return jnp.concatenate([counts, jnp.stack([low, high, total, squares])])


def _below(values: jax.Array, is_in: jax.Array, limits: jax.Array) -> jax.Array:
    """How many values lie below each limit; compared while they are counted, without an array."""
    shape = (*values.shape, limits.size)
    smaller: Any = lax.broadcast_in_dim(values, shape, range(values.ndim)) < lax.broadcast_in_dim(
        limits, shape, (values.ndim,)
    )
    counted = smaller & lax.broadcast_in_dim(is_in, shape, range(values.ndim))
    return counted.sum(range(values.ndim), dtype=jnp.int32)
