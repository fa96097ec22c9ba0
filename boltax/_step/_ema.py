"""The moving average of a model's parameters, and the state with it in their place.

    m_0 = 0,  m_t = decay * m_(t-1) + (1 - decay) * p_t        (Polyak and Juditsky 1992)
    average = m_t / (1 - decay^t)                              (Kingma and Ba 2015, section 3)

The division takes out the zero of the start: with a decay of 0.999 the average of 100 steps is
that of these steps and not nine tenths initial values. What is stored is the average itself, and
the divisor, so there is nothing to finish when it is read.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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

        def blend(mean: jax.Array, new: jax.Array) -> jax.Array:
            if not jnp.issubdtype(mean.dtype, jnp.inexact):
                return new
            share = weight.astype(mean.dtype)
            return (1 - share) * mean + share * new.astype(mean.dtype)

        return Ema(jax.tree.map(blend, self.variables, _averaged(state)), total, self.decay)


def first_ema(state: State, decay: float) -> Ema:
    """The average before the first step; traced."""
    variables = jax.tree.map(_wide, _averaged(state))
    return Ema(variables, jnp.zeros((), jnp.float32), jnp.asarray(decay, jnp.float32))


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
    return state if ema is None else state.replace(ema=first_ema(state, ema.decay))


def _averaged(state: State) -> Variables:
    found = {name: getattr(state, name) for name in AVERAGED}
    return {name: value for name, value in found.items() if value is not None}


def _wide(leaf: PyTree) -> jax.Array:
    """A copy, whose memory is its own, of a floating-point array at least in float32."""
    is_inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.array(leaf, wide(leaf.dtype) if is_inexact else leaf.dtype, copy=True)


def _as(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)
