"""Which parameters decay, and the L2 penalty of the loss.

Nothing here is applied by itself: `boltax.optim.build` hands the mask to the optimizer, and the
training step adds the penalty to the loss, each only when the user asked for it.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from boltax._base._trees import path_text
from boltax._base._types import PyTree
from boltax.optim._by_path import compiled, matching

DecayMask: TypeAlias = str | Callable[[PyTree], PyTree]
"""``"all"``, ``"kernels"``, a regular expression over paths, or a function to a tree of bools."""

# Parameters that shift or scale have two axes as well, with several heads or scanned layers.
_NOT_KERNELS = frozenset({"b", "beta", "bias", "gamma", "offset", "scale"})


def l2_penalty(params: PyTree, coefficient: float | jax.Array) -> jax.Array:
    """The L2 penalty ``0.5 * coefficient * |params|^2``, over all floating-point leaves.

    Its gradient is ``coefficient * p``: with plain SGD the same as decoupled decay; with Adam not,
    because there it is divided by the scale of the gradients.

    Args:
        params: parameters, any pytree of arrays.
        coefficient: strength; a number or a scalar array.

    Returns:
        A float32 scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> float(l2_penalty({"kernel": jnp.array([3.0, 4.0])}, 0.5))
        6.25
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    squares = [
        jnp.sum(jnp.square(leaf.astype(jnp.float32)))
        for leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    total = sum(squares, start=jnp.zeros((), jnp.float32))
    return 0.5 * jnp.asarray(coefficient, jnp.float32) * total


def mask_function(spec: DecayMask) -> Callable[[PyTree], PyTree] | None:
    """The mask in the form in which optax takes it; None when every parameter decays.

    Args:
        spec: ``"all"``; ``"kernels"``: leaves with at least two axes that are not named as a bias
            or a scale; any other string: a regular expression that is searched in paths such as
            ``"Dense_0/kernel"``; or a function from the parameters to a tree of bools.

    Raises:
        OptimizerError: when `spec` is none of these, or (by the function that is returned) when the
            expression matches no parameter.
    """
    if callable(spec):
        return spec
    if spec == "all":
        return None
    if spec == "kernels":
        return _kernels
    pattern = compiled("decay_mask", spec, _EXPECTED)
    return lambda params: matching(pattern, params, "decay_mask", 'decay_mask="kernel$"')


def describe_mask(spec: DecayMask) -> str:
    """What the mask chooses in a few words, for logs."""
    if callable(spec):
        return f"what {getattr(spec, '__name__', type(spec).__name__)} chooses"
    return {"all": "all parameters", "kernels": "kernels"}.get(spec, f"/{spec}/")


_EXPECTED = (
    '"all", "kernels" (no biases and norms), a regular expression over paths such as '
    '"Dense_0/kernel", or a function from the parameters to a tree of bools. Write for instance '
    'decay_mask="kernels".'
)


def _kernels(params: PyTree) -> PyTree:
    def is_kernel(path: tuple[Any, ...], leaf: Any) -> bool:
        return jnp.ndim(leaf) >= 2 and path_text(path[-1:]) not in _NOT_KERNELS

    return jax.tree_util.tree_map_with_path(is_kernel, params)
