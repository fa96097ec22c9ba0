"""What a user may override, as the loop sees it; and the place where the state of a run lives.

The loop never assigns to a trainer. It changes the `Live` value that a trainer reads its `state`
from, and calls the methods of `Hooks`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from boltax._base._types import ScalarMetrics


class Live:
    """The training state of now.

    Attributes:
        state: a `TrainState`, or a state of the user's own; None before there is one.
    """

    def __init__(self, state: Any = None) -> None:
        self.state = state


class Hooks(Protocol):
    """The methods of `TrainerModule` that a subclass may override, where the loop calls them."""

    def init_optimizer(self, num_epochs: int, num_steps_per_epoch: int | None) -> None:
        """Puts the optimizer into the state."""
        ...

    def train_epoch(self, train_loader: Any) -> ScalarMetrics:
        """Trains on one pass over the loader."""
        ...

    def eval_model(self, loader: Any, log_prefix: str = "") -> ScalarMetrics:
        """Gives the exact metrics over a data set."""
        ...

    def is_new_model_better(self, new: ScalarMetrics, old: ScalarMetrics | None) -> bool:
        """Tells whether a validation is the best so far."""
        ...

    def save_metrics(self, filename: str, metrics: ScalarMetrics) -> None:
        """Writes metrics to the run's folder."""
        ...

    def save_model(self, step: int = 0) -> None:
        """Saves the model as the best so far."""
        ...

    def save_snapshot(self) -> None:
        """Saves the model of this moment, to stay."""
        ...

    def load_model(self) -> None:
        """Loads the best model."""
        ...

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Hands metrics to the loggers."""
        ...

    def tracker(self, iterator: Iterable[Any], **kwargs: Any) -> Iterable[Any]:
        """Shows progress through an iterable."""
        ...

    def predict_batch(self, batch: Any) -> Any:
        """Gives the outputs for one batch."""
        ...

    def on_save_checkpoint(self) -> Mapping[str, Any]:
        """Gives what a resume checkpoint holds of a subclass."""
        ...

    def on_load_checkpoint(self, saved: Mapping[str, Any]) -> None:
        """Takes it back."""
        ...

    def on_training_start(self) -> None:
        """Is called before the first epoch."""
        ...

    def on_training_epoch_end(self, epoch_idx: int) -> None:
        """Is called after the steps of an epoch."""
        ...

    def on_validation_epoch_end(
        self, epoch_idx: int, eval_metrics: ScalarMetrics, val_loader: Any
    ) -> None:
        """Is called after a validation."""
        ...

    def on_training_end(self) -> None:
        """Is called after the last epoch."""
        ...
