"""What is checked before the first epoch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from boltax._evaluate import evaluate
from boltax._monitor import check_monitor
from boltax._run import Run
from boltax.errors import ConfigurationError, noting

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def check_one_batch(trainer: "TrainerModule", run: Run, val_loader: Any) -> None:
    """Evaluates one validation batch, so that a mistake in the evaluation shows before an epoch.

    Raises:
        MetricsError: when the trainer's monitor is not among the metrics.
    """
    if hasattr(val_loader, "__next__"):
        return  # it can be read only once, and that is not ours to spend
    source = run.source(val_loader, "val_loader")
    with noting("the check of one validation batch before the first epoch", "val, epoch 0, step 0"):
        metrics = evaluate(
            trainer.steps, trainer.state, source, track=_untracked, prefix="val/", limit=1
        )
    if (
        trainer.monitor
        and trainer.monitor[0].startswith("val/")
        and not trainer.adds_validation_metrics()
    ):
        check_monitor(trainer.monitor, metrics)


def check_monitors(trainer: "TrainerModule", val_loader: Any) -> None:
    """Refuses a monitor of the validation where there is none."""
    monitors = [trainer.monitor[0]] if trainer.monitor else []
    monitors += [name for name in (getattr(c, "monitor", "") for c in trainer.callbacks) if name]
    for name in monitors:
        if val_loader is None and str(name).startswith("val/"):
            raise ConfigurationError(
                f"Received monitor {name!r} but no val_loader; expected one to compute it from. "
                "Write train_model(train_loader, val_loader, ...), or monitor a train/ metric."
            )


def _untracked(iterator: Iterable[Any], **_: Any) -> Iterable[Any]:
    return iterator
