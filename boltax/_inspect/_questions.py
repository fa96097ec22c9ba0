"""What may be asked of a trainer without training it; a part of `TrainerModule`."""

from dataclasses import replace
from typing import Any

from boltax._base._options import AUTO
from boltax._base._types import Batch, PyTree, ScalarMetrics
from boltax._build._constructed import Constructed
from boltax._build._twin import stand_in_of
from boltax._inspect import _batch_size, _fitting, _lr_find, _preflight
from boltax._inspect._course import Course
from boltax._inspect._fast_dev_run import fast_dev_run
from boltax._inspect._fitting import Fitting
from boltax._inspect._found import Preflight
from boltax._inspect._gradients import gradients, model_view
from boltax._inspect._lr_find import LearningRateTest
from boltax._inspect._shown import as_html, as_text
from boltax.models._view import ModelView


class Questions(Constructed):
    """A trainer with the questions as methods; none of them changes it."""

    @property
    def history(self) -> Course:
        """The rows of the run so far: ``history["val/loss"]``, ``.plot()``, ``.to_pandas()``."""
        run = self.run
        return Course(run.history if run is not None else [])

    def gradients(self, batch: Batch) -> tuple[float, PyTree]:
        """The loss of a batch and its gradients, with the parameters of now; nothing is updated.

        They are those of a training step, before clipping and the optimizer: to see which layers
        learn. With the random keys of the next step.

        Args:
            batch: as the loader gives it.

        Returns:
            The loss, and a tree like ``state.params`` of NumPy arrays.

        Raises:
            ConfigurationError: for a trainer that writes its steps itself.

        Example:
            ``norms = jax.tree.map(numpy.linalg.norm, trainer.gradients(batch)[1])``
        """
        return gradients(self, batch)

    def fast_dev_run(
        self,
        train_loader: Any = None,
        val_loader: Any = None,
        test_loader: Any = None,
        *,
        batches: int = 1,
    ) -> ScalarMetrics:
        """A few batches of everything, without a file: whether a long run would go through.

        A copy of the state is trained, validated, tested, and with a `predict_function` of yours
        predicts; all hooks and callbacks are called. Afterwards the trainer, its folder, its
        callbacks and the loaders are as they were.

        Args:
            train_loader: as for `train_model`, and so the others.
            val_loader: see there.
            test_loader: see there.
            batches: how many of each.

        Returns:
            The metrics, as those of `train_model`.

        Raises:
            ConfigurationError: for a loader that can be read only once.
            Exception: whatever `train_model` would raise.
        """
        return fast_dev_run(self, train_loader, val_loader, test_loader, batches)

    def model_view(self, train: bool = False) -> ModelView:
        """The `model` of `loss_function`, to call a loss by hand.

        It has ``params``, ``hparams`` and ``rng`` as in a step: the next one of training, or an
        evaluation, of the average where `LoopOptions` asks for one. What its calls change, such as
        BatchNorm statistics, stays in the view.

        Args:
            train: in which mode.

        Example:
            ``loss, metrics = trainer.loss_function(trainer.model_view(), batch, train=False)``
        """
        return model_view(self, train)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

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

    def fitting(self, batch: Batch, memory: int | None = None) -> Fitting:
        """What a step needs in each way to compute it: in parts, with layers again; ``print`` it.

        Args:
            batch: a batch of the loader, or its shapes.
            memory: bytes on each device; by default as `LoopOptions` and the device say.
        """
        loop = replace(self.loop, microbatches=AUTO, remat=AUTO)
        twin = stand_in_of(self, is_silent=True, loop=loop)
        return _fitting.fitting(twin, batch, memory, is_whole=True)

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
