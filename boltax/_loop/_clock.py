"""When a resume checkpoint is due."""

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
        is_told: whether it is time by the clock of the job's first process; None where there is no
            other.
    """

    trigger: Every = field(default_factory=Every)
    saved_at: float = field(default_factory=time.monotonic)
    is_due: bool = False
    saved_point: Any = None
    retry_at: float = float("inf")
    best_steps: list[int] = field(default_factory=list[int])
    kept: tuple[Kept, ...] = ()
    is_told: bool | None = None

    def is_time(self) -> bool:
        """Whether one is due by the clock of this process, or is to be tried again."""
        now = time.monotonic()
        return self.trigger.is_time(now - self.saved_at) or now >= self.retry_at

    def ask(self, step: int, ended_epoch: int | None) -> bool:
        """Whether one is due now, or has been for a while."""
        is_time = self.is_time() if self.is_told is None else self.is_told
        is_counted = self.trigger.is_due(step=step, seconds=0.0, ended_epoch=ended_epoch)
        self.is_due |= is_time or is_counted
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
