"""Whether a call of a model stands inside of a user's own `jax.vmap`, where keys and state fail."""

from collections.abc import Iterator

import jax
from jax.core import Tracer

from boltax._base._types import PyTree
from boltax.errors import ModelError


def is_mapped(inputs: PyTree, own: PyTree) -> bool:
    """Whether inputs are mapped where the model's variables and key are not.

    In a population all is mapped, over its members, and that is as it should be.

    Args:
        inputs: with what a model is called.
        own: its variables and its key.
    """
    return bool(set(_mappings(inputs)) - set(_mappings(own)))


def mapped_by_user(name: str) -> ModelError:
    """The error for a call inside of a user's own `jax.vmap` that needs a key, or keeps state.

    Each example would draw the same random numbers, and no state could be taken from there.
    """
    return ModelError(
        f"Received a call of {name} inside of jax.vmap, where all examples would draw the same "
        "random numbers, and state cannot be kept; expected boltax to map it. Write "
        f"model_class=boltax.models.Vmap({name}) and model(images), or hand in a key of each "
        "example: jax.vmap(lambda x, key: model(x, key=key, mutable=False))(images, keys)."
    )


def _mappings(tree: PyTree) -> Iterator[int]:
    """The mappings in which the arrays of a tree are being traced."""
    for leaf in jax.tree.leaves(tree):
        value = leaf
        while isinstance(value, Tracer):
            if type(value).__name__ == "BatchTracer":  # JAX has no other way to ask
                yield id(getattr(value, "_trace", None))
            value = getattr(value, "val", getattr(value, "primal", None))
