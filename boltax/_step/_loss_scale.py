"""Dynamic loss scaling for float16: values in the state, and the rules by which they change.

Small gradients vanish in float16, so the loss is multiplied by a scale and the gradients are
divided by it. When they overflow, the update is left out and the scale is halved; after a while
without, it is doubled (Micikevicius et al. 2018, "Mixed precision training", arXiv:1710.03740).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

FIRST, LARGEST = 2.0**15, 2.0**24
DOUBLED_AFTER = 2000
"""Steps without overflow after which the scale is doubled."""


class LossScale(NamedTuple):
    """The scale of the loss.

    Attributes:
        scale: what the loss is multiplied with, a float32 scalar from 1 to `LARGEST`.
        good_steps: steps since it changed, an int32 scalar.
        overflows: updates that were left out so far, an int32 scalar.
    """

    scale: jax.Array
    good_steps: jax.Array
    overflows: jax.Array

    def after(self, is_overflow: jax.Array) -> "LossScale":
        """The scale for the next step; traced."""
        good_steps = jnp.where(is_overflow, 0, self.good_steps + 1)
        is_doubled = good_steps >= DOUBLED_AFTER
        grown = jnp.where(is_doubled, jnp.minimum(2 * self.scale, LARGEST), self.scale)
        return LossScale(
            jnp.where(is_overflow, jnp.maximum(self.scale / 2, 1), grown),
            jnp.where(is_doubled, 0, good_steps),
            self.overflows + is_overflow.astype(jnp.int32),
        )


def first_loss_scale() -> LossScale:
    """The scale with which a run begins."""
    zero = jnp.zeros((), jnp.int32)
    return LossScale(jnp.asarray(FIRST, jnp.float32), zero, jnp.zeros((), jnp.int32))


def has_overflowed(before: Any, after: Any) -> jax.Array | None:
    """Whether the step between two states was left out; None for states without a loss scale."""
    scale = getattr(after, "loss_scale", None)
    return None if scale is None else scale.overflows > before.loss_scale.overflows
