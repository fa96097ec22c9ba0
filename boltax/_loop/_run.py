"""A run while it lasts, on the host: its counters, limits, device metrics, and clocks."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from boltax._base._types import Cursor, Loader, ScalarMetrics
from boltax._loop._accumulators import Accumulators
from boltax._loop._agreement import Agreement
from boltax._loop._clock import SaveClock
from boltax._loop._counters import Counters, Stage
from boltax._loop._limits import Limits
from boltax._loop._validations import Validations
from boltax._process._ledger import Ledger
from boltax._process._signals import Signals
from boltax.data._divided import shared_source
from boltax.data._source import Source, as_source
from boltax.parallel._placement import ONE_DEVICE, Placement


@dataclass
class Run:
    """A run on its way; the loop alone changes it.

    Attributes:
        limits: how long it may last.
        counters: where it is; replaced, never written.
        metrics: what is accumulated on the device.
        clock: when a resume checkpoint is due.
        validations: on what it validates, and when that is due.
        signals: the signals that ask the process to leave.
        ledger: where the time goes.
        train_source: the training data as the loop reads them.
        sources: the loaders of this run as the loop reads them, so that each is looked at once.
        agreement: the `Agreement` of several processes; None for one alone.
        placement: on which devices it lies.
        state_watch: the `StateWatch` of a single run, once it begins.
        sanity_check: the `SanityCheck` that is still to be finished, or None.
        is_active: whether the loop is at work; else each `train_epoch` by hand is one more epoch.
        is_saveable: whether the state is that of this run, between its start and end.
        takes_new_data: whether a resume may be with other training data.
        is_resumed: whether the data have to be brought to the place of the cursor.
        is_cut: whether a limit of this call has ended the epoch before its last step: a resume goes
            on from there, as if it had not.
        limit_reached: which limit of this call has ended the run.
        nonfinite: how many steps of this process were not finite.
        told_spikes: the last step that was told as a spike of the loss.
        started: `time.monotonic()` at the start, less what was trained before a resume.
        epoch_started: `time.monotonic()` at the start of the epoch, likewise.
    """

    limits: Limits = field(default_factory=Limits)
    counters: Counters = field(default_factory=Counters)
    metrics: Accumulators = field(default_factory=Accumulators)
    clock: SaveClock = field(default_factory=SaveClock)
    validations: Validations = field(default_factory=Validations)
    signals: Signals = field(default_factory=Signals)
    ledger: Ledger = field(default_factory=Ledger)
    train_source: Any = None
    sources: dict[tuple[int, int | None], tuple[Any, Source]] = field(
        default_factory=dict[tuple[int, int | None], tuple[Any, Source]]
    )
    agreement: Agreement | None = None
    placement: Placement = ONE_DEVICE
    state_watch: Any = None
    sanity_check: Any = None
    is_active: bool = False
    is_saveable: bool = False
    takes_new_data: bool = False
    is_resumed: bool = False
    is_cut: bool = False
    limit_reached: str | None = None
    nonfinite: int = 0
    told_spikes: int = 0
    started: float = field(default_factory=time.monotonic)
    epoch_started: float = field(default_factory=time.monotonic)

    @property
    def epoch(self) -> int:
        """The running epoch, counted from 1."""
        return self.counters.epoch

    @property
    def step(self) -> int:
        """Completed steps."""
        return self.counters.step

    @property
    def stage(self) -> Stage:
        """Where in the epoch the run is."""
        return self.counters.stage

    @property
    def best(self) -> ScalarMetrics | None:
        """Metrics of the best validation so far."""
        return self.counters.best

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row for each finished epoch, or for each validation where these come within epochs.

        A row holds the means of training since the row before it.
        """
        return list(self.counters.history)

    @property
    def best_steps(self) -> list[int]:
        """Steps of the best models on the disk, the best last."""
        return self.clock.best_steps

    @property
    def stop_reason(self) -> str | None:
        """Why the run ends before its last epoch."""
        reason = self.counters.stop_reason if self.is_asked_to_stop else None
        return reason or self.limit_reached

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a callback asked for the end, so that it holds after a resume, too.

        Before the least number of epochs or steps the run goes on until it has trained for these.
        """
        counters = self.counters
        is_asked = counters.stop_reason is not None
        return is_asked and self.limits.may_stop(counters.epochs_done, counters.step)

    @property
    def is_over(self) -> bool:
        """Whether a run that is resumed has nothing left to train, whatever epochs are left."""
        return self.limits.is_used_up(self.step) or self.is_asked_to_stop

    def count(self, **changes: Any) -> None:
        """Replaces the counters by others with these changes."""
        self.counters = replace(self.counters, **changes)

    def now(self) -> Counters:
        """The counters with the seconds of this moment, for a checkpoint."""
        now = time.monotonic()
        seconds, of_epoch = now - self.started, now - self.epoch_started
        return replace(self.counters, seconds=seconds, seconds_of_epoch=of_epoch)

    def go_on_from(self, counters: Counters) -> None:
        """Takes over the counters of a checkpoint."""
        now = time.monotonic()
        self.counters, self.is_resumed = counters, counters.cursor is not None
        self.started, self.epoch_started = now - counters.seconds, now - counters.seconds_of_epoch
        self.clock.saved_point = None
        self.validations.go_on_from(counters.validated or 0)

    def begin_epoch(self) -> None:
        """Counts one more epoch, and forgets what belongs to the one before."""
        epoch = self.epoch + 1
        self.count(epoch=epoch, stage=Stage.TRAIN, record={}, row={}, logged={})
        self.metrics.interval = self.metrics.epoch = None
        self.epoch_started = time.monotonic()
        if epoch > 1:  # the first epoch begins with compiling
            self.metrics.told_at = time.perf_counter(), self.step, self.metrics.examples

    def count_steps(self, steps: int, size: int, cursor: Cursor) -> None:
        """Counts steps that were sent off, with the examples and the place of their batches."""
        self.count(step=self.step + steps, cursor=cursor)
        self.metrics.examples += steps * size

    def place(self) -> Cursor | None:
        """Where the running epoch begins or goes on in the data, for `Source.epoch`."""
        is_first, self.is_resumed = self.is_resumed, False
        return self.counters.cursor if is_first or self.counters.steps_done else None

    def steps_left(self, planned: int | None) -> int | None:
        """Steps that the running epoch may still take of those planned; None when that is open."""
        if planned is not None:
            planned = max(0, planned - self.counters.steps_done)
        return self.limits.steps_left(self.step, planned)

    def ask_to_stop(self, reason: str) -> None:
        """Has the run end after this step, for a reason that also holds after a resume."""
        if self.agreement is None:
            self.count(stop_reason=self.counters.stop_reason or reason)
        else:
            self.agreement.wish = self.agreement.wish or reason

    def agree(self, *, at_once: bool = False) -> None:
        """Comes to know what the other processes know; alone it does nothing."""
        if self.agreement is not None:
            self.agreement.ask(at_once=at_once)

    def poll(self) -> None:
        """Raises `Interrupted` when a signal has come, while the run lasts."""
        if self.is_active:
            self.agree()
        self.signals.poll()

    def should_stop(self) -> bool:
        """Whether a limit is reached or somebody asked to stop; notes the reason."""
        agreed = self.agreement
        is_time_up = self.limits.is_time_up() if agreed is None else agreed.is_time_up
        reached = self.limits.reached(self.step, is_time_up=is_time_up)
        self.limit_reached = self.limit_reached or reached
        return self.stop_reason is not None

    def where(self, phase: str) -> str:
        """The moment, for notes on exceptions."""
        return f"{phase}, epoch {self.epoch}, step {self.step}"

    def source(self, loader: Loader, name: str, steps_per_epoch: int | None = None) -> Source:
        """A loader as the loop reads it, the same for all epochs of a run."""
        key = (id(loader), steps_per_epoch)
        if key not in self.sources:
            source = as_source(loader, name=name, steps_per_epoch=steps_per_epoch)
            self.sources[key] = loader, shared_source(source, loader, name, self.placement)
        return self.sources[key][1]

    def known_source(self, loader: Loader) -> Source:
        """A loader as the loop reads it, which may not be one of this run's."""
        known = self.sources.get((id(loader), None))
        if known:
            return known[1]
        return shared_source(as_source(loader, name="loader"), loader, "loader", self.placement)
