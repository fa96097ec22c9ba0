"""The average of a model's parameters, moving or equal, and the state with it in their place.

    m_0 = 0,  m_t = decay * m_(t-1) + (1 - decay) * p_t        (Polyak and Juditsky 1992)
    average = m_t / (1 - decay^t)                              (Kingma and Ba 2015, section 3)

The division takes out the zero of the start: with a decay of 0.999 the average of 100 steps is
that of these steps and not nine tenths initial values. What is stored is the average itself, and
the divisor, so there is nothing to finish when it is read. The equal mean of SWA is kept likewise:

    mean_n = mean_(n-1) + (p_t - mean_(n-1)) / n            for each t that counts
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from boltax._base._options import SWA
from boltax._base._trees import wide
from boltax._base._types import PyTree, State, Variables

AVERAGED = ("params", "batch_stats")
"""The fields of a state of which the average is kept. BatchNorm statistics belong to the parameters
with which they were measured, so they are averaged with the same weights; other collections are
taken as they are."""


class Ema(NamedTuple):
    """A moving average under way.

    Attributes:
        variables: the average by collection, at least in float32; before the first step the initial
            values.
        total: the weights of all steps so far, ``1 - decay^t``, a float32 scalar.
        decay: a float32 scalar.
    """

    variables: Variables
    total: jax.Array
    decay: jax.Array

    def updated(self, state: State, is_step: jax.Array | None = None) -> "Ema":
        """The average with the values of one more state; traced.

        Args:
            state: the state after a step.
            is_step: whether it counts; None for yes.
        """
        total = self.decay * self.total + (1 - self.decay)
        weight = (1 - self.decay) / total
        if is_step is not None:
            total, weight = jnp.where(is_step, total, self.total), jnp.where(is_step, weight, 0)
        return Ema(_blended(self.variables, state, weight), total, self.decay)

    def anew(self, state: State) -> "Ema":
        """An average like this one, before its first step."""
        return Ema(_first(state), jnp.zeros((), jnp.float32), self.decay)


class EqualMean(NamedTuple):
    """An equal mean under way.

    Attributes:
        variables: as of `Ema`; before the first step that counts the values of now.
        number: steps that have counted, an int32 scalar.
        start: the first that counts, likewise.
        every: steps between two that count, likewise.
    """

    variables: Variables
    number: jax.Array
    start: jax.Array
    every: jax.Array

    def updated(self, state: State, is_step: jax.Array | None = None) -> "EqualMean":
        """The mean with the values of one more state, if it counts; see `Ema.updated`."""
        behind = jnp.asarray(state.step, jnp.int32) - self.start
        counts = (behind >= 0) & (behind % self.every == 0)
        if is_step is not None:
            counts &= is_step
        number = self.number + counts.astype(jnp.int32)
        weight = jnp.where(counts, 1 / jnp.maximum(number, 1).astype(jnp.float32), 0)
        weight = jnp.where(number == 0, 1, weight)
        return self._replace(variables=_blended(self.variables, state, weight), number=number)

    def anew(self, state: State) -> "EqualMean":
        """A mean like this one, before its first step."""
        zero = jnp.zeros((), jnp.int32)
        return self._replace(variables=_first(state), number=zero)


def first_ema(state: State, rule: Any) -> Ema | EqualMean:
    """The average before the first step; traced.

    Args:
        state: whose parameters are averaged.
        rule: a decay, or a `boltax.SWA`.
    """
    if isinstance(rule, SWA):
        numbers = (jnp.asarray(number, jnp.int32) for number in (0, rule.start, rule.every))
        return EqualMean(_first(state), *numbers)
    return Ema(_first(state), jnp.zeros((), jnp.float32), jnp.asarray(rule, jnp.float32))


def _blended(variables: Variables, state: State, weight: jax.Array) -> Variables:
    def blend(mean: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(mean.dtype, jnp.inexact):
            return new
        share = weight.astype(mean.dtype)
        return (1 - share) * mean + share * new.astype(mean.dtype)

    return jax.tree.map(blend, variables, _averaged(state))


def _first(state: State) -> Variables:
    return jax.tree.map(_wide, _averaged(state))


def evaluated(state: State, root: Any = None) -> Any:
    """The state as it is evaluated and saved: with the average of its parameters in their place.

    A state that keeps no average is evaluated as it is.

    Args:
        state: the state of training.
        root: the root random key of the run, where steps of a user's own may have changed that of
            the state: what evaluation draws is not to depend on how far training is.
    """
    if root is not None:
        state = state.replace(rng=root)
    ema = getattr(state, "ema", None)
    if ema is None:
        return state
    averages = {name: _as(value, getattr(state, name)) for name, value in ema.variables.items()}
    return state.replace(ema=None, **averages)


def restarted(state: State) -> Any:
    """The state with an average that begins anew, from the values of now."""
    ema = getattr(state, "ema", None)
    return state if ema is None else state.replace(ema=ema.anew(state))


def _averaged(state: State) -> Variables:
    found = {name: getattr(state, name) for name in AVERAGED}
    return {name: value for name, value in found.items() if value is not None}


def _wide(leaf: PyTree) -> jax.Array:
    """A copy, whose memory is its own, of a floating-point array at least in float32."""
    is_inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.array(leaf, wide(leaf.dtype) if is_inexact else leaf.dtype, copy=True)


def _as(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)
