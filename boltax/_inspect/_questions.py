"""What may be asked of a trainer without training it; a part of `TrainerModule`."""

from typing import Any

from boltax._base._types import Batch
from boltax._build._constructed import Constructed
from boltax._inspect import _batch_size, _lr_find, _preflight
from boltax._inspect._found import Preflight
from boltax._inspect._lr_find import LearningRateTest


class Questions(Constructed):
    """A trainer with the questions as methods; none of them changes it."""

    def preflight(self, batch: Batch, total_steps: int | None = None) -> Preflight:
        """What a training step needs: memory, operations, and whether it fits; ``print`` it.

        Args:
            batch: a batch of the loader, or its shapes: a pytree of `jax.ShapeDtypeStruct`.
            total_steps: as known to the schedule of the learning rate; it changes no number here.

        Raises:
            ConfigurationError: when the steps are not compiled by boltax.
            DataError: for a batch without arrays, or whose arrays disagree on their first axis.
            TrainingError: when the compiler itself finds that the step does not fit.
        """
        return _preflight.preflight(self, batch, total_steps)

    def find_batch_size(
        self, batch: Batch, *, limit: int | None = None, largest: int = 65536
    ) -> int:
        """The largest batch size with which training fits; found by compiling, not by crashing.

        Args:
            batch: a batch of any size, or its shapes; the first axes are those of the examples.
            limit: bytes that may be used; by default 90 % of the device's memory.
            largest: the largest size to consider.

        Raises:
            ConfigurationError: when not one example fits, or nobody knows the device's memory.
        """
        return _batch_size.find_batch_size(self, batch, limit=limit, largest=largest)

    def lr_find(
        self, train_loader: Any, min_lr: float = 1e-7, max_lr: float = 10.0, num_steps: int = 100
    ) -> LearningRateTest:
        """A learning rate range test: a copy of the state is trained with growing learning rates.

        Afterwards trainer and loader are as they were.

        Args:
            train_loader: as for `train_model`; it is repeated when it is too short.
            min_lr: the learning rate of the first step.
            max_lr: that of the last one; each step has it grow by the same factor.
            num_steps: steps to train, those after a divergence included.

        Returns:
            The rates with their losses, ``.suggestion``, and ``.plot("lr.png")``.

        Raises:
            ConfigurationError: for a range that cannot be, or a loader that can be read only once.
            OptimizerError: when the optimizer has no learning rate that can be set.
            TrainingError: when the loss is not finite at the first step.
        """
        return _lr_find.lr_find(self, train_loader, min_lr, max_lr, num_steps)
