"""The counters of a run, on the host, and the questions that the loop asks of them."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from boltax._base._triggers import Every
from boltax._base._types import Cursor, ScalarMetrics
from boltax._process._ledger import Ledger
from boltax._process._signals import Signals
from boltax.data._cursor import consumed
from boltax.data._source import Source, as_source
from boltax.metrics._accumulate import Metrics, SavedMetrics


class Stage(Enum):
    """Where in an epoch a run is, or goes on from: at these points all that it needs is in `Run`.

    An interruption or an exception in between has the run go on from the one before.
    """

    TRAIN = "train"
    """Between two steps of the epoch, or before its first."""
    VALIDATE = "validate"
    """The steps are done and recorded; the validation is next, if one is due."""
    COMPLETE = "complete"
    """The epoch is done; also the start, as epoch 0."""


class Due(NamedTuple):
    """Records of one dispatch that are still to be written.

    Attributes:
        steps: their steps.
        examples: examples of this process up to each.
        packed: their metrics, packed on their way to the host: a row for each, or more.
    """

    steps: list[int]
    examples: list[int]
    packed: Mapping[str, Any]

    def is_here(self) -> bool:
        """Whether the device has come to the last one."""
        return all(vector.is_ready() for vector in self.packed.values())

    def up_to(self, step: int) -> "Due":
        """Those whose step is no later."""
        number = sum(each <= step for each in self.steps)
        return Due(self.steps[:number], self.examples[:number], self.packed)


@dataclass
class Run:
    """The counters of a run, on the host.

    Attributes:
        num_epochs: epochs to train, or None when `train_epoch` is called by hand.
        total_steps: steps in all, or None when unknown.
        max_steps: steps after which to stop.
        deadline: `time.monotonic()` at which to stop.
        epoch: the running epoch, counted from 1.
        step: completed steps.
        stage: where in the epoch the run is.
        cursor: the place in the data of the last consumed batch.
        is_resumed: whether the data have to be brought to this place.
        interval: metrics accumulated since the last record; None when there was no step.
        accumulated: metrics of the epoch up to the last record.
        record: the means over the epoch, when its steps are done; after a resume also those up to
            the saved step, which are the epoch's when no batch is left.
        row: the epoch's row of the history, as far as it is known.
        best: metrics of the best validation so far.
        best_steps: steps of the best models that this run has on the disk, the best last; written
            by the saver alone.
        history: one row for each finished epoch.
        stop_reason: why the run ends before its last epoch.
        is_asked_to_stop: whether that is what a callback asked for, and no limit of this call.
        started: `time.monotonic()` at the start, less what was trained before a resume.
        epoch_started: the same for the epoch.
        logged: what callbacks logged with the records of the running epoch.
        is_cut: whether a limit of this call has ended the epoch before its last step: a resume goes
            on from there, as if it had not.
        nonfinite: how many steps of this process were not finite.
        is_active: whether the loop is at work; else each `train_epoch` by hand is one more epoch.
        is_saveable: whether the trainer's state is that of this run, between its start and end.
        signals: the signals that ask the process to leave.
        save_trigger: when a resume checkpoint is due.
        saved_at: `time.monotonic()` of the last one.
        is_save_due: whether one is due, and waits for the one before it.
        saved_point: epoch, stage and step of the last one.
        retry_at: `time.monotonic()` at which to try again what failed.
        train_source: the training data as the loop reads them.
        records_due: records of earlier steps that are still to be written, the oldest first.
        told_at: time, step and examples of the last record, for the speed.
        examples: examples of the steps of this process.
        ledger: where the time goes.
        sanity_check: the `SanityCheck` that is still to be finished, or None.
        sources: the loaders of this run as the loop reads them, so that each is looked at once.
    """

    num_epochs: int | None = None
    total_steps: int | None = None
    max_steps: int | None = None
    deadline: float | None = None
    epoch: int = 0
    step: int = 0
    stage: Stage = Stage.COMPLETE
    cursor: Cursor | None = None
    is_resumed: bool = False
    interval: Metrics | SavedMetrics | None = None
    accumulated: Metrics | SavedMetrics | None = None
    record: ScalarMetrics = field(default_factory=dict[str, Any])
    row: dict[str, Any] = field(default_factory=dict[str, Any])
    best: ScalarMetrics | None = None
    best_steps: list[int] = field(default_factory=list[int])
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    stop_reason: str | None = None
    is_asked_to_stop: bool = False
    started: float = field(default_factory=time.monotonic)
    epoch_started: float = field(default_factory=time.monotonic)
    logged: ScalarMetrics = field(default_factory=dict[str, Any])
    is_cut: bool = False
    nonfinite: int = 0
    is_active: bool = False
    is_saveable: bool = False
    signals: Signals = field(default_factory=Signals)
    save_trigger: Every = field(default_factory=Every)
    saved_at: float = field(default_factory=time.monotonic)
    is_save_due: bool = False
    saved_point: tuple[int, Stage, int] | None = None
    retry_at: float = float("inf")
    train_source: Any = None
    records_due: deque[Due] = field(default_factory=deque[Due])
    told_at: tuple[float, int, int] | None = None
    examples: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    sanity_check: Any = None
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

    def known_source(self, loader: Any) -> Source:
        """The same for a loader that may not be one of this run's."""
        known = self.sources.get((id(loader), None))
        return known[1] if known else as_source(loader, name="loader")

    def where(self, phase: str) -> str:
        """The moment, for notes on exceptions."""
        return f"{phase}, epoch {self.epoch}, step {self.step}"

    @property
    def is_over(self) -> bool:
        """Whether a run that is resumed has nothing left to train, whatever epochs are left."""
        is_used_up = self.max_steps is not None and self.step >= self.max_steps
        return is_used_up or self.is_asked_to_stop

    def ask_to_stop(self, reason: str) -> None:
        """Has the run end after this step, for a reason that also holds after a resume."""
        self.stop_reason = self.stop_reason or reason
        self.is_asked_to_stop = True

    def should_stop(self) -> bool:
        """Whether a limit is reached or somebody asked to stop; notes the reason."""
        if self.max_steps is not None and self.step >= self.max_steps:
            self.stop_reason = self.stop_reason or f"max_steps={self.max_steps} is reached"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stop_reason = self.stop_reason or "max_time is used up"
        return self.stop_reason is not None

    def begin_epoch(self) -> None:
        """Forgets what belongs to the epoch before."""
        self.stage = Stage.TRAIN
        self.interval = self.accumulated = None
        self.record, self.row, self.logged = {}, {}, {}
        self.epoch_started = time.monotonic()
        if self.epoch > 1:  # the first epoch begins with compiling
            self.told_at = time.perf_counter(), self.step, self.examples

    @property
    def steps_done(self) -> int:
        """Steps of the running epoch that are done."""
        return consumed(self.cursor, self.epoch)

    def place(self) -> Cursor | None:
        """Where the running epoch begins or goes on in the data, for `Source.epoch`."""
        is_first, self.is_resumed = self.is_resumed, False
        return self.cursor if is_first or self.steps_done else None

    def steps_left(self, planned: int | None) -> int | None:
        """Steps that the running epoch may still take of those planned; None when that is open."""
        if planned is not None:
            planned = max(0, planned - self.steps_done)
        if self.max_steps is None:
            return planned
        left = max(0, self.max_steps - self.step)
        return left if planned is None else min(planned, left)


def planned_steps(
    num_epochs: int, steps_per_epoch: int | None, max_steps: int | None
) -> int | None:
    """The number of steps of a whole run, or None when nobody knows it."""
    known = [
        n for n in (steps_per_epoch and steps_per_epoch * num_epochs, max_steps) if n is not None
    ]
    return min(known) if known else None
