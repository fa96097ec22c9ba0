"""What records say of each layer: norms, ratios and histograms, of the step of the record. Traced.

They are computed at those steps alone, in one branch of the program, and without large arrays.
Between two records they are sums of nothing; as pairs ``(value, 1 or 0)`` they are what the
accumulation of metrics takes.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

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
        found |= _histograms(
            {
                f"{HISTOGRAMS}{kind}/{name}": leaves
                for kind, layers in trees.items()
                for name, leaves in layers.items()
            }
        )
    return found


def _norm(leaves: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(sum((jnp.sum(leaf * leaf) for leaf in leaves), jnp.float32(0)))


def _histograms(groups: Layers) -> dict[str, jax.Array]:
    """Counts of the finite values in `BINS` bins, then their limits, sum, and sum of squares.

    All are counted in one loop over the limits of the bins: what is compared with all of them at
    once would take their number times the memory, for steps without a record as well.
    """
    ranges = {name: _range(leaves) for name, leaves in groups.items()}

    def below(share: jax.Array) -> dict[str, jax.Array]:
        return {name: _below(leaves, ranges[name], share) for name, leaves in groups.items()}

    counted = lax.map(below, jnp.arange(1, BINS, dtype=jnp.float32) / BINS)
    return {
        name: _histogram(leaves, ranges[name], counted[name]) for name, leaves in groups.items()
    }


def _range(leaves: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest finite value; infinities where there is none."""
    low = [jnp.min(x, where=jnp.isfinite(x), initial=jnp.inf) for x in leaves]
    high = [jnp.max(x, where=jnp.isfinite(x), initial=-jnp.inf) for x in leaves]
    return jnp.stack(low).min(), jnp.stack(high).max()


def _below(
    leaves: list[jax.Array], limits: tuple[jax.Array, jax.Array], share: jax.Array
) -> jax.Array:
    """How many finite values lie below a limit: a share of the way through all bins."""
    low, high = limits
    begin, end = jnp.where(low == high, low - 0.5, low), jnp.where(low == high, high + 0.5, high)
    limit = begin + (end - begin) * share
    counts = (((x >= low) & (x < limit)).sum(dtype=jnp.int32) for x in leaves)
    return sum(counts, jnp.int32(0))


def _histogram(
    leaves: list[jax.Array], limits: tuple[jax.Array, jax.Array], below: jax.Array
) -> jax.Array:
    finite = [(x, jnp.isfinite(x)) for x in leaves]
    number = sum((is_in.sum(dtype=jnp.int32) for _, is_in in finite), jnp.int32(0))
    counts = jnp.diff(jnp.concatenate([jnp.zeros(1, jnp.int32), below, number[None]]))
    total = sum((jnp.sum(x, where=is_in) for x, is_in in finite), jnp.float32(0))
    squares = sum((jnp.sum(x * x, where=is_in) for x, is_in in finite), jnp.float32(0))
    return jnp.concatenate([counts.astype(jnp.float32), jnp.stack([*limits, total, squares])])
