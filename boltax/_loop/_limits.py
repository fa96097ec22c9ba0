"""How long a run may last: epochs, steps, seconds. Values only; the loop asks them."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of one call of `train_model`.

    Attributes:
        num_epochs: epochs to train; None when `train_epoch` is called by hand.
        max_steps: steps after which to stop.
        deadline: `time.monotonic()` at which to stop.
        total_steps: steps in all, which a schedule of the learning rate follows; None when unknown.
        schedule_steps: steps over which the schedule is laid out, where that is not the steps in
            all: as the user says, or as a resumed run had them at its first start.
        min_epochs: epochs before which nobody ends the run by asking to stop.
        min_steps: steps, likewise.
    """

    num_epochs: int | None = None
    max_steps: int | None = None
    deadline: float | None = None
    total_steps: int | None = None
    schedule_steps: int | None = None
    min_epochs: int = 0
    min_steps: int = 0

    def may_stop(self, epochs: int, step: int) -> bool:
        """Whether a run may end because a callback asks for it.

        Args:
            epochs: completed epochs.
            step: completed steps.
        """
        return epochs >= self.min_epochs and step >= self.min_steps

    def reached(self, step: int, *, is_time_up: bool) -> str | None:
        """Which limit a run has come to, in words; None for none."""
        if self.is_used_up(step):
            return f"max_steps={self.max_steps} is reached"
        return "max_time is used up" if is_time_up else None

    def is_time_up(self) -> bool:
        """Whether the time is over, by the clock of this process."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def is_used_up(self, step: int) -> bool:
        """Whether no step may follow, whatever epochs are left."""
        return self.max_steps is not None and step >= self.max_steps

    def steps_left(self, step: int, planned: int | None) -> int | None:
        """Steps that may still be taken of those planned; None when that is open.

        Args:
            step: completed steps.
            planned: steps that the data have left; None when nobody knows.
        """
        if self.max_steps is None:
            return planned
        left = max(0, self.max_steps - step)
        return left if planned is None else min(planned, left)


def deadline_in(seconds: float | None) -> float | None:
    """The `time.monotonic()` at which so many seconds from now are over."""
    return None if seconds is None else time.monotonic() + seconds


DEFAULT_EPOCHS = 500
"""Epochs of a run for which the user names no limit, neither epochs nor steps; as in the guide."""


def planned_epochs(
    num_epochs: int | None, steps_per_epoch: int | None, max_steps: int | None
) -> int:
    """The epochs of a run; `max_steps` alone, without `num_epochs`, has as many as it takes.

    Args:
        num_epochs: as the user gives it; None where it is not given.
        steps_per_epoch: of the loader; None when it does not tell.
        max_steps: as the user gives it; None where it is not given.

    Returns:
        A number that ends no run before `max_steps`, unless the user names it.

    Example:
        >>> planned_epochs(None, 1, 600), planned_epochs(10, 1, 600), planned_epochs(None, 7, None)
        (600, 10, 500)
    """
    if num_epochs is not None:
        return num_epochs
    if max_steps is None:
        return DEFAULT_EPOCHS
    # An epoch has a step at least.
    return max_steps if not steps_per_epoch else -(-max_steps // steps_per_epoch)


def planned_steps(
    num_epochs: int, steps_per_epoch: int | None, max_steps: int | None
) -> int | None:
    """The number of steps of a whole run, or None when nobody knows it."""
    of_epochs = None if steps_per_epoch is None else steps_per_epoch * num_epochs
    known = [n for n in (of_epochs, max_steps) if n is not None]
    return min(known) if known else None
