"""Arrays that move about on the device: copies of trees, and rows of the members of a population.

What is compiled for it knows shapes and nothing else, so that all trainers and populations of a
process share it. It takes leaves in place of trees: JAX keeps what is static in a tree, such as a
trainer's optimizer, as long as what was compiled for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._types import Number, PyTree
from boltax.parallel._placement import ONE_DEVICE, Placement

_MOST_FORMS = 64
"""So many forms of arrays are known at once; programs of models that are long gone go, too."""


def compile_copy(
    placement: Placement = ONE_DEVICE,
) -> Callable[[PyTree, PyTree | None], PyTree]:
    """Compiles ``copy(tree, into)``: a copy on the device, in new memory or in that of `into`.

    A copy into memory that was used before takes a fifth of the time.
    """
    if not placement.is_one:
        anew = placement.jit(_copy, lambda tree: ((placement.held(tree),), placement.held(tree)))
        return lambda tree, _: anew(tree)

    def copied(tree: PyTree, into: PyTree | None) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        anew, again = _copies_of(_shapes(leaves))
        new = anew(leaves) if into is None else again(leaves, jax.tree.leaves(into))
        return structure.unflatten(new)

    return copied


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


@lru_cache(maxsize=_MOST_FORMS)
def _copies_of(_: tuple[Any, ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Copies of arrays of some shapes: anew, and into other arrays."""

    def copy(leaves: list[jax.Array]) -> list[jax.Array]:
        return _copy(leaves)

    def copy_into(leaves: list[jax.Array], _: list[jax.Array]) -> list[jax.Array]:
        return _copy(leaves)

    return jax.jit(copy), jax.jit(copy_into, donate_argnums=1, keep_unused=True)


@dataclass(frozen=True)
class MemberFunctions:
    """What moves the members of a population about on the device, compiled.

    Attributes:
        stack: ``(*trees) -> tree`` with a first axis, the trees.
        gather: ``(trees with a first axis, index [n]) -> tree``: rows of all of them, one behind
            the other.
        one: ``(tree with a first axis, index []) -> tree``: a row.
        choose: ``(condition [n] or [], yes, no) -> tree``; takes the memory of the last.

    An index or a condition may be one of NumPy's, which goes to wherever the trees are.
    """

    stack: Callable[..., PyTree]
    gather: Callable[[tuple[PyTree, ...], Number], PyTree]
    one: Callable[[PyTree, Number], PyTree]
    choose: Callable[[Number, PyTree, PyTree], PyTree]


def compile_members() -> MemberFunctions:
    """Compiles what moves the members of a population about on the device."""

    def stack(*trees: PyTree) -> PyTree:
        flat, structure = _flat(trees)
        return structure.unflatten(_moves_of(_shapes(flat[0])).stack(*flat))

    def gather(groups: tuple[PyTree, ...], index: Number) -> PyTree:
        flat, structure = _flat(groups)
        return structure.unflatten(_moves_of(_shapes(flat[0])).gather(tuple(flat), index))

    def one(tree: PyTree, index: Number) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        return structure.unflatten(_moves_of(_shapes(leaves)).one(leaves, index))

    def choose(condition: Number, yes: PyTree, no: PyTree) -> PyTree:
        (left, right), structure = _flat((yes, no))
        return structure.unflatten(_moves_of(_shapes(left)).choose(condition, left, right))

    return MemberFunctions(stack, gather, one, choose)


def _flat(trees: Sequence[PyTree]) -> tuple[list[list[Any]], Any]:
    """The leaves of trees that are alike, and how they are built."""
    structure = jax.tree.structure(trees[0])
    return [structure.flatten_up_to(tree) for tree in trees], structure


def _shapes(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.dtype) for leaf in leaves)


@lru_cache(maxsize=_MOST_FORMS)
def _moves_of(_: tuple[Any, ...]) -> MemberFunctions:
    """The functions of `compile_members` for arrays of some shapes, on lists of leaves."""

    def gather(groups: tuple[PyTree, ...], index: jax.Array) -> PyTree:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[index], *groups)

    def choose(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
        def one(left: jax.Array, right: jax.Array) -> jax.Array:
            shape = condition.shape + (1,) * (left.ndim - condition.ndim)
            return jnp.where(condition.reshape(shape), left, right)

        return jax.tree.map(one, yes, no)

    return MemberFunctions(
        stack=jax.jit(lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)),
        gather=jax.jit(gather),
        one=jax.jit(lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)),
        choose=jax.jit(choose, donate_argnums=2),
    )
