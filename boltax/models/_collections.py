"""A model's variables as plain nested dicts, which keep their structure from step to step.

Knows neither Linen nor NNX.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._trees import describe
from boltax.errors import ModelError

PARAMS = "params"
CALL_ONLY = ("intermediates", "perturbations")
"""Collections of values that belong to one call: they are no part of a model's variables."""


_CREATE_ALL = (
    "Create every variable when the model is initialised, write back the same shape and dtype "
    '(value.astype(old.dtype)), and store a value of one call with self.sow("intermediates", ...).'
)


def strong(tree: Any) -> Any:
    """A tree whose leaves are arrays of a definite dtype.

    A Python number, or an array that follows from one, is weakly typed: it would be a new type, and
    so a new trace of the step, when it comes back as the result of arithmetic.
    """
    return jax.tree.map(_strong_leaf, tree)


def _strong_leaf(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    array = jnp.asarray(leaf)
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    return array if is_key else jax.lax.convert_element_type(array, array.dtype)


def settled(name: str, before: Any, after: Any, model: str, *, write: str = _CREATE_ALL) -> Any:
    """A collection after a call, which must have the structure, shapes and dtypes from before.

    Args:
        name: the collection's, for the message.
        before: the collection that went into the call.
        after: the one that came out.
        model: the model's name, for the message.
        write: what to do about it, for the message.

    Raises:
        ModelError: when they differ; a state that grows or changes its shape cannot be carried from
            step to step.
    """
    if _signature(before) != _signature(after):
        raise ModelError(
            f"Received the collection {name!r} of {model} after a call as {describe(after, name)}; "
            f"expected it to be as before, {describe(before, name)}. {write}"
        )
    return strong(after)


def _signature(tree: Any) -> Any:
    shapes = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), shapes


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Puts a value into nested dicts, making those that are missing."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def take(tree: Any, path: Sequence[str], model: str) -> Any:
    """The value at a path of nested dicts.

    Raises:
        ModelError: when there is none.
    """
    for depth, key in enumerate(path):
        try:
            tree = tree[key]
        except (KeyError, TypeError):
            known = ", ".join(tree) if isinstance(tree, dict) else type(tree).__name__
            raise ModelError(
                f"Received variables for {model} without {'/'.join(path)}; expected the variables "
                f"that it was initialised with, but {'/'.join(path[:depth]) or 'the top level'} "
                f"has only: {known}. Use variables of the same model with the same hyperparameters."
            ) from None
    return tree
