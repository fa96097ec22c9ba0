"""How often something occurred, and at which steps at first; fixed in size, so it accumulates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MOST = 8
"""Steps that are remembered."""
_NEVER = 2**31 - 1


@struct.dataclass
class Occurrences:
    """A count, with the first steps; a metric whose value is the count.

    Attributes:
        number: how often, int32.
        steps: the first steps in order, int32 ``[MOST]``; `_NEVER` behind them.

    Example:
        >>> at = Occurrences.at
        >>> both = at(jnp.int32(7), jnp.bool_(True)).merge(at(jnp.int32(8), jnp.bool_(False)))
        >>> int(both.compute()), both.known()
        (1, [7])
    """

    number: Any
    steps: Any

    @classmethod
    def at(cls, step: jax.Array, has_occurred: jax.Array) -> "Occurrences":
        """That of one step; traced."""
        first = jnp.where(has_occurred, step, _NEVER).astype(jnp.int32)
        rest = jnp.full((MOST - 1,), _NEVER, jnp.int32)
        return cls(has_occurred.astype(jnp.int32), jnp.concatenate([first[None], rest]))

    def merge(self, other: "Occurrences") -> "Occurrences":
        """That of both."""
        steps = jnp.sort(jnp.concatenate([self.steps, other.steps]))[:MOST]
        return Occurrences(self.number + other.number, steps)

    def compute(self) -> Any:
        """How often."""
        return self.number

    def known(self) -> list[int]:
        """The first steps, on the host."""
        return [step for step in np.asarray(self.steps).tolist() if step != _NEVER]
