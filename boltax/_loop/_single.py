"""A single run: the group of one that the loop trains, with the hooks of its trainer.

`Single` holds no state of its own: the state is in `Live`, where the trainer reads it, and all that
counts is in `Run`.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._chunks import Chunk, Plan
from boltax._base._monitor import GUIDE_ORDER, Monitor
from boltax._base._trees import is_deleted
from boltax._base._types import Loader, ScalarMetrics, State
from boltax._loop import _validate
from boltax._loop._accumulators import Accumulated, Due
from boltax._loop._best_files import history_rows, restore_best, write_files
from boltax._loop._compile_ahead import compile_steps_ahead
from boltax._loop._counters import Stage
from boltax._loop._derived import Derive, computed
from boltax._loop._epoch import interval_of
from boltax._loop._layers import RECORD, log_histograms
from boltax._loop._names import check_training_names, check_validation_names
from boltax._loop._nonfinite import NonFiniteWatch
from boltax._loop._notify import hook, joined, log, notify
from boltax._loop._one import One
from boltax._loop._record import scalars
from boltax._loop._saving import save_small, state_tree
from boltax._loop._spikes import tell_spikes
from boltax._loop._state_watch import StateWatch
from boltax._loop._stream import steps_to_next
from boltax._loop._trainees import Loaders, Saved, Watch
from boltax._step._bodies import Training
from boltax._step._ema import evaluated
from boltax._step._state import evaluations_of
from boltax._step._steps import Steps
from boltax.callbacks._base import overriding
from boltax.callbacks._states import callback_states, load_callback_states
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.checkpoint._plain import plain
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.errors import TrainingError, noting
from boltax.loggers._history import History
from boltax.metrics._accumulate import Metrics, merge, rebuilt, unpack
from boltax.optim._plateau import check_followed
from boltax.optim._resettings import changed_settings, with_settings
from boltax.parallel._devices import idle_devices


class Single(One):
    """A run of one state."""

    # How steps are sent off.

    @property
    def states(self) -> Sequence[State]:
        """The one state."""
        return (self.live.state,)

    def put(self, index: int, state: State) -> None:
        """Replaces the state."""
        self.live.state = state

    @property
    def steps(self) -> Steps:
        """The trainer's steps."""
        return self.parts.steps

    def steps_of(self, index: int) -> Steps:
        """The trainer's steps."""
        return self.parts.steps

    def placed(self, chunk: Chunk) -> Sequence[Chunk]:
        """The chunk where it is."""
        return (chunk,)

    def send_each(self, number: int, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off for the one state."""
        send(0)

    def compile_ahead(self, loaders: Loaders) -> Future[Any] | None:
        """Begins to compile both steps, where arrays in memory tell their batches."""
        return compile_steps_ahead(self)

    def prepare(self, first: Chunk, distance: int) -> None:
        """Begins to compile the training step for the form of the first batch."""
        carry = Training(self.live.state, interval_of(self, first)[0])
        self.steps.train.precompile(self.steps.placement.number(1), carry, first.feed, distance)

    def plan(self, distance: int, at: int, left: int | None, until_due: int) -> Plan:
        """How the next steps are sent off; what measuring may cost follows from the whole run."""
        total = self.run.limits.total_steps if self.run.is_active else None
        # else there may be further epochs
        return self.steps.train.plan(distance, None if total is None else total - at, until_due)

    def ready(self, chunk: Chunk) -> Chunk:
        """The chunk as it is."""
        return chunk

    @property
    def has_record_loop(self) -> bool:
        """A loop of the steps of one state ends the intervals of its records."""
        return True

    def watch(self) -> Watch:
        """Acts on the first step that is not finite, as the options say."""
        return NonFiniteWatch(self)

    # What happens at the moments of a run.

    def begin(self, loaders: Loaders, steps_per_epoch: int | None) -> None:
        """Gives the state its optimizer."""
        if self.steps.placement.is_one and (idle := idle_devices()):
            self.parts.progress.note(idle)
        self.hooks.init_optimizer(self.run.limits.num_epochs or 0, steps_per_epoch)
        step = self.steps.placement.put(jnp.asarray(self.live.state.step, jnp.int32))
        self.live.state = self.live.state.replace(step=step)
        self.run.state_watch = StateWatch(self.steps, self.live.state)
        if (evaluations := evaluations_of(self.live.state)) is not None:
            check_followed(evaluations.metrics, loaders.val)

    def start(self) -> None:
        """Has nothing to do: the state is as it was initialised."""

    def sanity_states(self) -> Sequence[State]:
        """The state as an evaluation reads it."""
        return (evaluated(self.live.state, self.parts.root_key),)

    def one_of(self, metrics: Metrics) -> Metrics:
        """The metrics as they are."""
        return metrics

    def check_names(self, names: Collection[str]) -> None:
        """Refuses a monitor, or what the optimizer follows, that a validation does not give."""
        evaluations, later = evaluations_of(self.live.state), self.run.validations.known_later
        check_validation_names(self.parts, names, evaluations, later)

    def check_training_names(self, names: Collection[str]) -> None:
        """Refuses what follows a metric that training does not give."""
        check_training_names(self.parts, names)

    def on_training_start(self) -> None:
        """Calls the hooks, which may change the state."""
        with noting(f"{self.parts.name}.on_training_start", self.run.where("train")):
            self.hooks.on_training_start()
        notify(self, "on_training_start", "train")

    def epochs_left(self) -> int:
        """The epochs that the call asked for, less those that are done."""
        return (self.run.limits.num_epochs or 0) - self.run.epoch

    def on_epoch_start(self) -> None:
        """Calls the callbacks."""
        notify(self, "on_training_epoch_start", "train")

    def train(self, loader: Loader) -> None:
        """Trains for an epoch, with its record and hooks."""
        run = self.run
        record = self.hooks.train_epoch(loader)
        # an override of train_epoch counts in the state only
        run.count(record=record, step=max(run.step, int(jax.device_get(self.live.state.step))))
        row = joined(self._row(record), run.counters.logged)
        is_logged = run.counters.is_validated  # with the validation after the last step
        log(self, {"epoch": run.epoch, **({} if is_logged else record)})
        # the hooks come after the record, which they may read, and before the validation
        with hook(self, "on_training_epoch_end", "train"):
            self.hooks.on_training_epoch_end(run.epoch)
        logged = notify(self, "on_training_epoch_end", "train", record, row=row)
        run.count(row=joined(row, logged), stage=Stage.VALIDATE)

    def next_events(self, step: int) -> Iterator[int]:
        """Steps to those that callbacks ask for."""
        for callback in overriding(self.parts.callbacks, "on_step_end"):
            if (following := callback.next_step(step)) is not None:
                yield steps_to_next(type(callback).__name__, step, following)

    def after_steps(self) -> None:
        """Calls the callbacks that have asked for this step."""
        step = self.run.step
        for callback in overriding(self.parts.callbacks, "on_step_end"):
            if callback.next_step(step - 1) == step:
                notify(self, "on_step_end", "train", only=callback)

    @property
    def must_write_at_once(self) -> bool:
        """Whether a callback may look at the state with the record."""
        return bool(overriding(self.parts.callbacks, "on_log"))

    def unpack(self, due: Due) -> list[list[Metrics]]:
        """The metrics of the records of a dispatch."""
        like: Any = self.run.metrics.interval
        return [[row] for row in unpack(due.packed[0], like=like[0])]

    def on_record(
        self, step: int, metrics: list[Metrics], speed: Mapping[str, float]
    ) -> ScalarMetrics:
        """Tells the callbacks of a record, and hands it to the loggers."""
        run, derive = self.run, self.parts.derive
        tell_spikes(self, metrics[0])
        values = computed(metrics[0], RECORD, derive)
        with run.ledger.spent("logging"):
            values = log_histograms(self.parts.logger, values, step)
        run.count(logged=run.counters.logged | notify(self, "on_log", "train", values))
        log(self, {**values, **run.counters.logged, **speed}, step)
        return values

    def pause(self, metrics: list[Metrics] | None) -> None:
        """Records the training since the last validation."""
        run = self.run
        record = {} if metrics is None else computed(metrics[0], "train/", self.parts.derive)
        stage = run.stage if metrics is None else Stage.MIDWAY
        row = joined(self._row(record), run.counters.logged)
        run.count(record=record, row=row, logged={}, stage=stage)
        if record:
            log(self, record)

    def go_on(self) -> None:
        """Puts the row of the validation into the history."""
        run = self.run
        stage = Stage.TRAIN if run.stage is Stage.MIDWAY else run.stage
        self._add_row(run.counters.row, f"the row of step {run.step}")
        run.count(row={}, validated=run.step, stage=stage)

    def is_validation_due(self) -> bool:
        """Whether it is time, or no other epoch follows; not twice after the same step."""
        run = self.run
        if run.counters.is_validated:
            return False
        if run.epoch == run.limits.num_epochs or run.stop_reason is not None:
            run.validations.take_all()
            return True
        return run.validations.ask(run.step, run.epoch)

    def validate(self, loader: Loader) -> None:
        """Validates and keeps the best; see there."""
        _validate.validate(self, loader)

    def end_epoch(self, *, is_validated: bool) -> ScalarMetrics:
        """Puts the epoch's row into the history."""
        run, row = self.run, self.run.counters.row
        if not run.counters.is_validated:  # else the row of that validation is this one
            self._add_row(row, f"the row of epoch {run.epoch}")
        if is_validated:
            run.count(validated=run.step)
        monitor = self.parts.monitor
        return _shown(row, [monitor] if monitor else GUIDE_ORDER)

    def _row(self, record: ScalarMetrics) -> ScalarMetrics:
        """A row of the history that begins."""
        seconds = time.monotonic() - self.run.epoch_started
        return {"epoch": self.run.epoch, "step": self.run.step, **record, "time/train": seconds}

    def _add_row(self, row: ScalarMetrics, what: str) -> None:
        run = self.run
        run.count(history=(*run.counters.history, row))
        append = History(self.parts.directory.history, key=run.validations.key).append
        save_small(self.parts, run, f"{what} in history.csv", append, history_rows([row])[0])

    def end_training(self) -> None:
        """Calls the hooks after the last epoch, with the last state."""
        with hook(self, "on_training_end", "train"):
            self.hooks.on_training_end()
        notify(self, "on_training_end", "train")

    def test(self, loader: Loader) -> ScalarMetrics:
        """Tests the best model, which is loaded for it."""
        return _validate.test(self, loader)

    def on_exception(self, error: BaseException) -> None:
        """Tells the callbacks."""
        notify(self, "on_exception", "train", error=error)

    def close(self) -> None:
        """Has nothing to give up."""

    # What a resume checkpoint holds.

    def check_whole(self) -> None:
        """Refuses a state that is lost, or ahead of the counters as within a user's `train_epoch`.

        Raises:
            TrainingError: saying where to go on from.
        """
        state, run, name = self.live.state, self.run, self.parts.name
        if is_deleted(state_tree(state)):
            raise TrainingError(
                "Received a state whose memory belongs to a step that failed; expected a live one. "
                "The last resume checkpoint is the place to go on from: resume=True."
            )
        if run.stage is not Stage.TRAIN or not self.parts.overrides("train_epoch"):
            return
        if int(jax.device_get(state.step)) > run.step:
            raise TrainingError(
                f"Received an exception within {name}.train_epoch, which has its own loop; "
                "expected one between epochs, since nobody knows the place in the data. The last "
                "resume checkpoint is the place to go on from: resume=True."
            )

    def content(self) -> Saved:
        """The state, in memory of its own, and what callbacks and the trainer keep."""
        with noting(f"{self.parts.name}.on_save_checkpoint", self.run.where("train")):
            extra = dict(self.hooks.on_save_checkpoint())
        state = self.parts.copies.take(state_tree(self.live.state))
        kept = {"callbacks": callback_states(self.parts.callbacks), "extra": extra}
        done = partial(self.parts.copies.give_back, state)
        late = partial(_record_so_far, self.parts.derive)
        return Saved({"state": state}, kept, late, done)

    def find(self, checkpoints: ResumeCheckpoints, step: int | None) -> Resume | None:
        """Reads a checkpoint of a state like this one."""
        template = {"state": state_tree(self.live.state), "interval": ..., "epoch": ...}
        return checkpoints.restore(template, step)

    def keep_schedule(self, steps: int) -> None:
        """Makes the optimizer anew, whose functions hold the schedule; its arrays are read later.

        An `init_optimizer` of a user's own gets as many epochs as have these steps.
        """
        planned = self.run.train_source.num_batches
        epochs = -(-steps // planned) if planned else self.run.limits.num_epochs
        self.hooks.init_optimizer(epochs or 0, planned)

    def take(self, found: Resume) -> None:
        """Goes on with the state, the best models, callbacks and files of a checkpoint."""
        extra = found.progress["extra"]
        restore_best(self.parts, self.run, found)
        state, arrays = self.live.state, found.arrays["state"]
        arrays = self._with_settings(arrays, found.progress["config"])
        self.live.state = state.replace(**arrays) if hasattr(state, "replace") else arrays
        load_callback_states(self.parts.callbacks, found.progress["callbacks"])
        with noting(f"{self.parts.name}.on_load_checkpoint", self.run.where("train")):
            self.hooks.on_load_checkpoint(extra)
        write_files(self.parts, self.hooks, self.run)

    def _with_settings(self, arrays: Any, saved: Mapping[str, Any]) -> Any:
        """What was saved, with the settings that are in the state and have changed since."""
        now, fresh = plain(self.parts.config), self.live.state
        names = changed_settings(saved.get("optimizer_hparams"), now.get("optimizer_hparams"))
        if not isinstance(arrays, dict) or not {"opt_state", "hparams"} <= arrays.keys():
            return arrays  # a state of the user's own
        if names:
            opt_state = with_settings(arrays["opt_state"], fresh.opt_state, names)
            arrays = {**arrays, "opt_state": opt_state}
        held: Any = arrays["hparams"]
        own = [n for n in held or () if n in names or saved.get(n) != now.get(n)]
        return (
            {**arrays, "hparams": {**held, **{n: fresh.hparams[n] for n in own}}} if own else arrays
        )


def _shown(row: Mapping[str, Any], monitors: Sequence[Monitor]) -> dict[str, float]:
    """An epoch's row in the order in which a progress bar with little room wants it."""
    numbers = scalars(row)
    first = ["train/loss", *(name for name, _ in monitors)]
    names = [n for phase in ("val/", "train/") for n in numbers if n.startswith(phase)]
    return {n: numbers[n] for n in (*first, *names) if n in numbers}


def _record_so_far(derive: Derive, interval: Accumulated, epoch: Accumulated) -> dict[str, Any]:
    """The means of the epoch so far, for a checkpoint; none when no batch was seen yet."""
    before: Any = None if epoch is None else epoch[0]
    whole: Any = before
    if interval is not None and isinstance(interval[0], Metrics):
        new = interval[0]
        whole = new if before is None else merge(rebuilt(before, like=new), new)
    if not isinstance(whole, Metrics):
        return {}
    record = computed(whole, "train/", derive)
    return {"record": plain_metrics(record)} if record else {}
