"""The best models of a population as one model: the mean of what they say."""

from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._types import PyTree
from boltax._step._state import variables_of
from boltax.models._bound import BoundModel
from boltax.parallel._devices import default_device, on_device
from boltax.tune._members import Members
from boltax.tune._on_test_set import best_state
from boltax.tune._predictions import members_with_best


class Ensemble:
    """Several bound models that are called as one.

    Args:
        members: the numbers of the members.
        models: their models, bound with their parameters.

    Attributes:
        members: as given, and so `models`.

    Example:
        >>> ensemble = Ensemble((0, 1), (lambda x: x, lambda x: 3 * x))
        >>> ensemble(jnp.ones(2)), ensemble.spread(jnp.ones(2))
        (Array([2., 2.], dtype=float32), Array([1., 1.], dtype=float32))
    """

    def __init__(self, members: tuple[int, ...], models: tuple[BoundModel | Any, ...]) -> None:
        self.members, self.models = members, models

    def __len__(self) -> int:
        return len(self.models)

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        """The mean of what the models give, which are called with these arguments."""
        outputs = self.outputs(*args, **kwargs)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), outputs)

    def spread(self, *args: Any, **kwargs: Any) -> PyTree:
        """How much they differ: the standard deviation."""
        outputs = self.outputs(*args, **kwargs)
        return jax.tree.map(lambda leaf: jnp.std(leaf, axis=0), outputs)

    def outputs(self, *args: Any, **kwargs: Any) -> PyTree:
        """What each of them gives, ``[members, ...]``."""
        each = [model(*args, **kwargs) for model in self.models]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def __repr__(self) -> str:
        return f"Ensemble of members {', '.join(map(str, self.members))}"


def ensemble_of(members: Members) -> Ensemble:
    """The best models of a population.

    Raises:
        TrainingError: when no member has one.
    """
    found = members_with_best(members)
    adapter = members.hooks._made.adapter
    models = [
        adapter.bind(on_device(variables_of(best_state(members, one)), default_device()))
        for one in found
    ]
    return Ensemble(tuple(member.number for member in found), tuple(models))
