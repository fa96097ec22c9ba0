"""When a resume checkpoint is due, and when a validation."""

import time
from dataclasses import dataclass, field
from typing import Any

from boltax._base._options import CheckpointOptions
from boltax._base._triggers import Every
from boltax.checkpoint._best import Kept


@dataclass
class SaveClock:
    """When resume checkpoints were saved, and when the next one is due.

    Attributes:
        trigger: when one is due.
        saved_at: `time.monotonic()` of the last one.
        is_due: whether one is due, and waits for the one before it.
        saved_point: epoch, stage and step of the last one.
        retry_at: `time.monotonic()` at which to try again what failed.
        best_steps: steps of the best models that this run has on the disk, the best last; written
            by the saver alone.
        kept: the best models that are on the disk or on their way there, the best last.
    """

    trigger: Every = field(default_factory=Every)
    saved_at: float = field(default_factory=time.monotonic)
    is_due: bool = False
    saved_point: Any = None
    retry_at: float = float("inf")
    best_steps: list[int] = field(default_factory=list[int])
    kept: tuple[Kept, ...] = ()

    def ask(self, step: int, ended_epoch: int | None) -> bool:
        """Whether one is due now, or has been for a while."""
        now = time.monotonic()
        self.is_due |= now >= self.retry_at or self.trigger.is_due(
            step=step, seconds=now - self.saved_at, ended_epoch=ended_epoch
        )
        return self.is_due

    def note_saved(self, point: Any) -> None:
        """Begins to count anew: a checkpoint of this point is on its way."""
        self.saved_point, self.saved_at = point, time.monotonic()
        self.is_due, self.retry_at = False, float("inf")


def save_trigger(options: CheckpointOptions) -> Every:
    """When a resume checkpoint is due, by the user's options."""
    return Every(
        steps=options.every_steps, minutes=options.every_minutes, epochs=options.every_epochs
    )


@dataclass
class ValidationClock:
    """When validations are due.

    Attributes:
        trigger: when one is due.
        is_at_start: whether one comes before the first step.
        loader: the validation data.
        last_at: `time.monotonic()` of the last one.
        last_step: the step of the last one.
    """

    trigger: Every = field(default_factory=Every)
    is_at_start: bool = False
    loader: Any = None
    last_at: float = field(default_factory=time.monotonic)
    last_step: int = 0

    @property
    def is_within_epochs(self) -> bool:
        """Whether validations may come within an epoch."""
        return self.trigger.steps is not None or self.trigger.minutes is not None

    @property
    def is_by_step(self) -> bool:
        """Whether an epoch may have another number of validations than one or none."""
        return self.is_within_epochs or self.is_at_start

    @property
    def key(self) -> str:
        """What tells the rows of the history apart."""
        return "step" if self.is_by_step else "epoch"

    def is_due_within(self, step: int) -> bool:
        """Whether one is due after a step within an epoch."""
        return self.is_within_epochs and self.trigger.is_due(step=step, seconds=self._seconds)

    def is_due_after(self, step: int, epoch: int) -> bool:
        """Whether one is due after the last step of an epoch."""
        every = self.trigger.steps
        # steps of a trainer's own loop may have gone past one
        is_passed = every is not None and step // every > self.last_step // every
        seconds = self._seconds
        return is_passed or self.trigger.is_due(step=step, seconds=seconds, ended_epoch=epoch)

    def note(self, step: int) -> None:
        """Begins to count anew: there was one after this step."""
        self.last_at, self.last_step = time.monotonic(), step

    def still_to_come(self, step: int, total: int | None, epoch: int, epochs: int | None) -> int:
        """The validations that are still to come, with this one.

        Args:
            step: completed steps.
            total: steps in all, if known.
            epoch: the running epoch.
            epochs: epochs in all, if known.
        """
        if (every := self.trigger.steps) is not None:
            return 1 if total is None else 1 + max(0, total - step) // every
        if (every := self.trigger.epochs) is not None:
            return 1 if epochs is None else 1 + max(0, epochs - epoch) // every
        return 1

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.last_at
