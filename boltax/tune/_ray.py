"""The objective of a study for Ray Tune, which trains each trial in a process of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from boltax._build._twin import stand_in_of
from boltax.callbacks._base import Callback, View
from boltax.trainer import TrainerModule
from boltax.tune._groups import MakeTrainer

Report = Callable[[dict[str, float]], Any]


def as_ray_trainable(
    make_trainer: MakeTrainer,
    train_loader: Any,
    val_loader: Any = None,
    *,
    num_epochs: int,
    report: Report,
) -> Callable[[Mapping[str, Any]], None]:
    """What `optimize` trains, as a function that Ray Tune can run.

    Ray starts a process for each trial, which compiles anew; to have its machines share a study
    with populations, start `optimize` with one storage on each of them instead. Ray comes with
    ``pip install "ray[tune]"``.

    Args:
        make_trainer: as for `optimize`.
        train_loader: likewise.
        val_loader: likewise.
        num_epochs: of each trial.
        report: ``ray.tune.report``; called with the metrics of each epoch that is validated, by
            names such as ``"val/acc"``.

    Returns:
        A function from a configuration to nothing, for ``ray.tune.Tuner(function, ...)``.

    Example:
        >>> import flax.linen as nn, numpy as np, boltax as bx
        >>> class Regressor(bx.TrainerModule):
        ...     def loss_function(self, model, batch, train):
        ...         return ((model(batch[0]) - batch[1]) ** 2).mean(), {}
        >>> inputs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        >>> loader = bx.data.ArrayLoader((inputs, inputs.sum(1, keepdims=True)), batch_size=16)
        >>> def make_trainer(lr):
        ...     return Regressor(
        ...         nn.Dense, {"features": 1}, {"lr": lr}, exmp_input=next(iter(loader)),
        ...         enable_progress_bar=False, logger_params={"logger_type": "none"})
        >>> reported = []
        >>> train = as_ray_trainable(
        ...     make_trainer, loader, loader, num_epochs=2, report=reported.append)
        >>> train({"lr": 0.01})
        >>> [sorted(metrics) for metrics in reported]
        [['epoch', 'val/loss'], ['epoch', 'val/loss']]
    """

    def train(config: Mapping[str, Any]) -> None:
        trainer: TrainerModule = make_trainer(**config)
        callbacks = (*trainer.callbacks, _Reporting(report, val_loader is not None))
        reporting = stand_in_of(trainer, is_silent=False, callbacks=callbacks)
        reporting.train_model(train_loader, val_loader, num_epochs=num_epochs)

    return train


class _Reporting(Callback):
    """Hands the metrics of each epoch on."""

    def __init__(self, report: Report, is_validated: bool) -> None:
        self._report, self._is_validated = report, is_validated

    def on_training_epoch_end(self, view: View) -> None:
        if not self._is_validated:
            self._hand_on(view)

    def on_validation_epoch_end(self, view: View) -> None:
        self._hand_on(view)

    def _hand_on(self, view: View) -> None:
        numbers = {n: float(v) for n, v in view.metrics.items() if isinstance(v, int | float)}
        self._report({"epoch": float(view.epoch), **numbers})
