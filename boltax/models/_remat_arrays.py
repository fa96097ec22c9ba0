"""The arrays among the arguments of a layer that is computed again; the rest stays as it is."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def divided_arrays(arguments: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of arguments, and what puts them back among the rest, such as ``train=True``."""
    leaves, structure = jax.tree.flatten(arguments)
    are_arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]

    def rebuild(arrays: list[Any]) -> Any:
        rest = iter(arrays)
        pairs = zip(leaves, are_arrays, strict=True)
        return structure.unflatten([next(rest) if is_array else leaf for leaf, is_array in pairs])

    return [leaf for leaf, is_array in zip(leaves, are_arrays, strict=True) if is_array], rebuild
