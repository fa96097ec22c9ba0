"""Steps whose loss jumps far above what it was: noticed, and left out where that is asked for.

    mean, variance   of the losses of about the last 100 steps, exponentially weighted
    a spike          a loss above mean + 6 * standard deviation, from the 101st step on

A loss that is a spike enters the mean as that limit, so that a level which has risen for good is
one some steps later. Both numbers are values in the optimizer's state, so a resumed run knows them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from boltax._base._trees import choose
from boltax._base._types import PyTree
from boltax.errors import unknown_name

POLICIES = ("warn", "skip")
STEPS = 100
"""Steps over which mean and variance go, and before which nothing is a spike."""
DEVIATIONS = 6.0
LEAST = 0.01
"""The least standard deviation, by the size of the mean: a loss that hardly moves has no spikes."""


class SpikeState(NamedTuple):
    """What is known of the losses, around the state of the optimizer.

    Attributes:
        inner: the optimizer's.
        mean: of the losses, float32 and of no steps 0; so the next.
        square: the mean of their squared distances from it.
        steps: how many losses were seen, int32.
        number: how many of them were spikes, int32.
    """

    inner: PyTree
    mean: jax.Array
    square: jax.Array
    steps: jax.Array
    number: jax.Array

    def limit(self) -> jax.Array:
        """The loss above which the next one is a spike; infinity as long as nobody can say."""
        deviation = jnp.maximum(jnp.sqrt(self.square), LEAST * jnp.abs(self.mean))
        return jnp.where(self.steps < STEPS, jnp.inf, self.mean + DEVIATIONS * deviation)


def check_policy(policy: Any) -> str | None:
    """The value of ``on_spike``.

    Raises:
        UnknownNameError: when it is none.
    """
    if policy is not None and policy not in POLICIES:
        raise unknown_name("on_spike", str(policy), POLICIES)
    return policy


def watching_spikes(
    tx: optax.GradientTransformationExtraArgs, policy: str | None
) -> optax.GradientTransformationExtraArgs:
    """`tx`, with a look at the loss of each update.

    Args:
        tx: the optimizer; its `update` is given ``value``, the loss.
        policy: ``"skip"`` has a spike change neither parameters nor the state of `tx`; ``"warn"``
            only counts it; None leaves `tx` as it is.
    """
    if policy is None:
        return tx

    def init(params: PyTree) -> SpikeState:
        zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return SpikeState(tx.init(params), zero, zero, none, none)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, SpikeState]:
        loss = jnp.asarray(extra["value"], jnp.float32)
        is_spike = loss > state.limit()
        new, inner = tx.update(updates, state.inner, params, **extra)
        if policy == "skip":
            new = jax.tree.map(lambda leaf: jnp.where(is_spike, jnp.zeros_like(leaf), leaf), new)
            inner = choose(is_spike, state.inner, inner)
        return new, _seen(state, loss, is_spike)._replace(inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _seen(state: SpikeState, loss: jax.Array, is_spike: jax.Array) -> SpikeState:
    """What is known with one more loss; one that is not finite tells nothing."""
    value = jnp.minimum(loss, state.limit())
    steps = state.steps + 1
    share = 1.0 / jnp.minimum(steps, STEPS).astype(jnp.float32)
    distance = value - state.mean
    mean = state.mean + share * distance
    square = (1 - share) * (state.square + share * distance * distance)
    new = SpikeState(state.inner, mean, square, steps, state.number + is_spike.astype(jnp.int32))
    return choose(jnp.isfinite(loss), new, state)


def number_of_spikes(opt_state: PyTree) -> jax.Array | None:
    """How many spikes an optimizer has met; None for one that does not look."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, SpikeState))
    numbers = [part.number for part in parts if isinstance(part, SpikeState)]
    return sum(numbers[1:], numbers[0]) if numbers else None
