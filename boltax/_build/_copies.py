"""Copies of arrays on the device, which the background writes while the loop goes on."""

from boltax._base._trees import form_of
from boltax._base._types import PyTree
from boltax._step._copies import compile_copy
from boltax.metrics._accumulate import Metrics, SavedMetrics
from boltax.parallel._devices import is_on_cpu
from boltax.parallel._placement import ONE_DEVICE, Placement


class Copies:
    """Copies of the state for the background, which reuse the memory of an earlier one.

    On a CPU only: there new memory is slow and plentiful, on an accelerator the other way round.

    Args:
        placement: where the arrays lie.
    """

    def __init__(self, placement: Placement = ONE_DEVICE) -> None:
        self._copy, self._is_one = compile_copy(placement), placement.is_one
        self._spare: PyTree | None = None

    def copy(self, tree: PyTree) -> PyTree:
        """A copy of a tree on the device, which nothing else uses."""
        return self._copy(tree, None)

    def take(self, tree: PyTree) -> PyTree:
        """A copy of a tree, in the memory of one that was given back."""
        spare, self._spare = self._spare, None
        if spare is not None and form_of(spare) != form_of(tree):
            spare = None
        return self._copy(tree, spare)

    def of_metrics(self, metrics: Metrics | SavedMetrics) -> Metrics | SavedMetrics:
        """A copy of accumulated metrics; those out of a checkpoint belong to nobody else."""
        return self._copy(metrics, None) if isinstance(metrics, Metrics) else metrics

    def give_back(self, copy: PyTree) -> None:
        """Lets the next copy have the memory of this one."""
        if is_on_cpu() and self._is_one:
            self._spare = copy
