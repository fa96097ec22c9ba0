"""Whether arrays are finite, each as a whole: traced, and read once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from boltax._base._trees import path_text
from boltax._base._types import PyTree, State
from boltax._step._state import variables_of


def are_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    """For each array whether all of it is finite.

    Args:
        leaves: arrays of floating-point or complex numbers.
    """
    return [lax.is_finite(_nothing(leaf)) for leaf in leaves]


def _nothing(leaf: jax.Array) -> jax.Array:
    """The sum of an array times zero: zero, or NaN where a number is not finite.

    XLA compiles it in a tenth of the time that it takes for `jnp.isfinite(leaf).all()`.
    """
    parts = [lax.real(leaf), lax.imag(leaf)] if jnp.iscomplexobj(leaf) else [leaf]
    zero = np.zeros((), parts[0].dtype)
    sums = [lax.reduce(p * zero, zero, lax.add, tuple(range(p.ndim))) for p in parts]
    return sums[0] if len(sums) == 1 else sums[0] + sums[1]


def inexact_variables(state: State) -> dict[str, Any]:
    """The model's variables of a state that may be infinite or NaN, by name.

    Example:
        >>> import types
        >>> params = {"Dense_0": {"kernel": jnp.ones(2)}, "n": jnp.zeros((), jnp.int32)}
        >>> list(inexact_variables(types.SimpleNamespace(params=params)))
        ['params/Dense_0/kernel']
    """
    tree: PyTree = variables_of(state) if hasattr(state, "params") else state
    return {
        path_text(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    }
