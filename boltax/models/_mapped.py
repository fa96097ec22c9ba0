"""Whether a call of a model stands inside of a user's own `jax.vmap`, where keys and state fail."""

from collections.abc import Iterator

import jax
from jax.core import Tracer

from boltax._base._types import PyTree
from boltax.errors import ModelError


def check_unmapped(name: str, inputs: PyTree, own: PyTree) -> None:
    """Refuses inputs that are mapped where the model's variables and key are not.

    Each example would draw the same random numbers, and no state could be taken from there. In a
    population all is mapped, over its members, and that is as it should be.

    Args:
        name: the model's.
        inputs: with what it is called.
        own: its variables and its key.

    Raises:
        ModelError: when they are.
    """
    if set(_mappings(inputs)) - set(_mappings(own)):
        raise ModelError(
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
