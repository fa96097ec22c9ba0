"""A function compiled for a mesh, with shardings that follow from the arguments of each form."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

Shardings: TypeAlias = Callable[..., tuple[Any, Any]]
"""From arguments, arrays or their forms, to the shardings of what goes in, and of what comes out:
trees, of which a prefix is enough."""


class Jitted:
    """What ``jax.jit`` gives, for a mesh: nothing is left to the compiler to place.

    Args:
        function: a pure function.
        shardings: see there.
        donate: the arguments whose memory is taken.
    """

    def __init__(
        self, function: Callable[..., Any], shardings: Shardings, donate: tuple[int, ...] = ()
    ) -> None:
        self._function, self._shardings, self._donate = function, shardings, donate
        self._known: dict[Any, Any] = {}

    def trace(self, *args: Any) -> Any:
        """The function for arguments like these, traced."""
        return self._jit(args).trace(*args)

    def lower(self, *args: Any) -> Any:
        """The function for arguments like these, not compiled."""
        return self._jit(args).lower(*args)

    def __call__(self, *args: Any) -> Any:
        """Runs it."""
        return self._jit(args)(*args)

    def _jit(self, args: tuple[Any, ...]) -> Any:
        arriving, leaving = self._shardings(*args)
        leaves, structure = jax.tree.flatten((arriving, leaving))
        key = structure, tuple(leaves)
        if key not in self._known:
            self._known[key] = jax.jit(
                self._function,
                in_shardings=arriving,
                out_shardings=leaving,
                donate_argnums=self._donate,
            )
        return self._known[key]


def misplaced(args: tuple[Any, ...], expected: tuple[Any, ...]) -> tuple[str, Any, Any] | None:
    """The first array that lies elsewhere than a compiled program expects it.

    Args:
        args: the arguments.
        expected: their shardings, as ``compiled.input_shardings[0]``.

    Returns:
        Its path, where it lies, and where it should; None when all lie well.
    """
    wanted = jax.tree.leaves(expected, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding))
    found = jax.tree_util.tree_leaves_with_path(args)
    if len(wanted) != len(found):
        return None
    for (path, leaf), place in zip(found, wanted, strict=True):
        if not isinstance(leaf, jax.Array) or not leaf.committed:
            continue
        if not leaf.sharding.is_equivalent_to(place, leaf.ndim):
            return jax.tree_util.keystr(path), leaf.sharding, place
    return None
