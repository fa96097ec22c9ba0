"""The counters of a run, on the host, and the questions that the loop asks of them."""

import time
from dataclasses import dataclass, field
from typing import Any

from boltax._types import Cursor, ScalarMetrics
from boltax.data._source import Source, as_source


@dataclass
class Run:
    """The counters of a run, on the host.

    Attributes:
        num_epochs: epochs to train, or None when `train_epoch` is called by hand.
        total_steps: steps in all, or None when unknown.
        max_steps: steps after which to stop.
        deadline: `time.monotonic()` at which to stop.
        epoch: the running epoch, counted from 1.
        step: completed optimizer updates.
        cursor: the place in the data of the last consumed batch.
        best: metrics of the best validation so far.
        history: one row for each finished epoch.
        stop_reason: why the run ends before its last epoch.
        started: `time.monotonic()` at the start.
        logged: what callbacks logged with the records of the running epoch.
        is_active: whether the loop counts the epochs; else each `train_epoch` by hand is one more.
        sources: the loaders of this run as the loop reads them, so that each is looked at once.
    """

    num_epochs: int | None = None
    total_steps: int | None = None
    max_steps: int | None = None
    deadline: float | None = None
    epoch: int = 0
    step: int = 0
    cursor: Cursor = field(default_factory=dict[str, Any])
    best: ScalarMetrics | None = None
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    stop_reason: str | None = None
    started: float = field(default_factory=time.monotonic)
    logged: ScalarMetrics = field(default_factory=dict[str, Any])
    is_active: bool = False
    sources: dict[tuple[int, int | None], tuple[Any, Source]] = field(
        default_factory=dict[tuple[int, int | None], tuple[Any, Source]]
    )

    def source(self, loader: Any, name: str, steps_per_epoch: int | None = None) -> Source:
        """A loader as the loop reads it, the same for all epochs of a run."""
        key = (id(loader), steps_per_epoch)
        if key not in self.sources:
            self.sources[key] = (
                loader,
                as_source(loader, name=name, steps_per_epoch=steps_per_epoch),
            )
        return self.sources[key][1]

    def where(self, phase: str) -> str:
        """The moment, for notes on exceptions."""
        return f"{phase}, epoch {self.epoch}, step {self.step}"

    def should_stop(self) -> bool:
        """Whether a limit is reached or somebody asked to stop; notes the reason."""
        if self.max_steps is not None and self.step >= self.max_steps:
            self.stop_reason = self.stop_reason or f"max_steps={self.max_steps} is reached"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stop_reason = self.stop_reason or "max_time is used up"
        return self.stop_reason is not None

    def steps_in_epoch(self, planned: int | None) -> int | None:
        """Steps that the running epoch may take of those planned for it; None when that is open."""
        if self.max_steps is None:
            return planned
        left = self.max_steps - self.step
        return left if planned is None else min(planned, left)


def planned_steps(
    num_epochs: int, steps_per_epoch: int | None, max_steps: int | None
) -> int | None:
    """The number of steps of a whole run, or None when nobody knows it."""
    known = [
        n for n in (steps_per_epoch and steps_per_epoch * num_epochs, max_steps) if n is not None
    ]
    return min(known) if known else None
