"""The variables of a model under flat names, as a file of weights has them, and back again."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from boltax._base._trees import path_text
from boltax._base._types import PyTree, Variables
from boltax.checkpoint._dtypes import is_key
from boltax.errors import ModelError

Weights = Mapping[str, Any]


def flat_weights(variables: Variables) -> tuple[dict[str, Any], Callable[[Weights], PyTree]]:
    """The arrays of a model by name, and what makes its variables of them again; that is traced.

    Random keys are their data. Arrays stay where they are, and are not copied.

    Returns:
        ``{"params/Dense_0/kernel": array, ...}``, and the function back.

    Raises:
        ModelError: when two arrays would have one name.

    Example:
        >>> import numpy as np
        >>> flat, back = flat_weights({"params": {"Dense_0": {"bias": np.zeros(2)}}})
        >>> list(flat), back(flat)["params"]["Dense_0"]["bias"].shape
        (['params/Dense_0/bias'], (2,))
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables)
    kinds = {path_text(path): _kind_of_key(leaf) for path, leaf in leaves}
    if len(kinds) < len(leaves):
        names = sorted(path_text(path) for path, _ in leaves)
        twice = next(a for a, b in itertools.pairwise(names) if a == b)
        raise ModelError(
            f"Received a model with two arrays that are both called {twice}; expected a name for "
            "each. Leave slashes out of the names of parameters."
        )

    def back(weights: Weights) -> PyTree:
        own = (
            weights[name] if kind is None else jax.random.wrap_key_data(weights[name], impl=kind)
            for name, kind in kinds.items()
        )
        return jax.tree.unflatten(structure, own)

    return {
        name: leaf if kinds[name] is None else jax.random.key_data(leaf)
        for name, leaf in ((path_text(path), leaf) for path, leaf in leaves)
    }, back


def _kind_of_key(leaf: Any) -> Any:
    return jax.random.key_impl(leaf) if is_key(leaf.dtype) else None
