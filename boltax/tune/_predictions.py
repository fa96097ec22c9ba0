"""What the best models of members predict, side by side: an ensemble."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from boltax._base._types import PyTree
from boltax._loop._predict import predict
from boltax._loop._run import Run
from boltax.errors import TrainingError
from boltax.tune._members import Members
from boltax.tune._on_test_set import best_state
from boltax.tune._schedulers import Member


@dataclass(frozen=True)
class Predictions:
    """The outputs of several models for the same data.

    Attributes:
        members: the numbers of the members.
        outputs: a pytree of NumPy arrays ``[members, examples, ...]``.

    Example:
        >>> import numpy as np
        >>> predictions = Predictions((0, 1), np.array([[1.0, 4.0], [3.0, 4.0]]))
        >>> predictions.mean(), predictions.spread()
        (array([2., 4.]), array([1., 0.]))
    """

    members: tuple[int, ...]
    outputs: PyTree

    def mean(self) -> PyTree:
        """The prediction of the ensemble: the mean over its members, ``[examples, ...]``."""
        return jax.tree.map(lambda leaf: np.mean(leaf, axis=0), self.outputs)

    def spread(self) -> PyTree:
        """How much its members differ: the standard deviation, ``[examples, ...]``."""
        return jax.tree.map(lambda leaf: np.std(leaf, axis=0), self.outputs)


def members_with_best(members: Members) -> list[Member]:
    """The members that have a best model.

    Raises:
        TrainingError: when none has.
    """
    found = [member for member in members.members if member.best is not None]
    if not found:
        raise TrainingError(
            "Received a population without a best model, since no validation was finite; expected "
            "one of a member at least. Look at population.table for the reasons."
        )
    return found


def predictions(members: Members, loader: Any) -> Predictions:
    """The outputs of the best model of each member that has one.

    Raises:
        TrainingError: when none has.
    """
    found = members_with_best(members)
    source, steps = Run().known_source(loader), members.make_steps(1, members.places[0])
    outputs = [
        predict(
            steps,
            best_state(members, member),
            source,
            track=members.hooks.tracker,
            prefetch=members.parts.loop.prefetch,
        )
        for member in found
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)
    return Predictions(tuple(member.number for member in found), stacked)
