"""A population as the loop trains it: the same moments as those of a single run, for each member.

begin, start                forms, or fresh states, in rows
for each epoch, a pass over the data for all members:
ready, send_each        groups of members, each a state of the loop
on_record               of each member, of the best, and the mean
train                   metrics of each member; one whose steps were not finite ends
validate                each member; its hook, its optimizer, its best variables;
those that have trained for all their epochs end;
the scheduler asks: Stop, Replace, Overwrite
end_epoch               best models of those that have ended go to their folders; groups
that nobody needs any more are given up
end_training, test          best models of all members, and their test
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import jax

from boltax._base._chunks import Chunk, Mode, Plan
from boltax._base._types import Cursor, ScalarMetrics
from boltax._loop._accumulators import Due
from boltax._loop._counters import Stage
from boltax._loop._derived import computed
from boltax._loop._epoch import run_epoch
from boltax._loop._layers import RECORD, log_histograms
from boltax._loop._saving import save_small
from boltax._loop._trainees import Loaders, Saved, Watch
from boltax._step._bodies import Training
from boltax._step._ema import evaluated
from boltax._step._state import evaluations_of, variables_of
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.errors import TrainingError
from boltax.metrics._accumulate import Metrics, unpack
from boltax.optim._plateau import check_metrics
from boltax.parallel._places import on_place
from boltax.tune import _content
from boltax.tune._layout import decide, group, only_layout, shrink
from boltax.tune._layouts import Layout
from boltax.tune._member_folders import table_of, write_best, write_table
from boltax.tune._member_records import record_epoch, record_of, shown
from boltax.tune._members import Members
from boltax.tune._memory import check_wanted
from boltax.tune._on_test_set import evaluate_best
from boltax.tune._schedulers import Status, check_names
from boltax.tune._used import check_used
from boltax.tune._validate import validate_members


class _Sent:
    """Notes that the steps of all groups went off: then states and counters are of one moment."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def add(self, chunk: Chunk, outputs: Any, before: Cursor | None) -> None:
        """Notes it; members whose steps are not finite end with their epoch."""
        self._members.is_whole = True

    def look(self, *, up_to: int) -> None:
        """Waits for nothing."""


class MemberTrainees(Members):
    """The members as the loop trains them."""

    # How steps are sent off.

    def put(self, index: int, state: Any) -> None:
        """Replaces the states of a group."""
        self.states[index] = state

    def compile_ahead(self, loaders: Loaders) -> Future[Any] | None:
        """Compiles nothing: how members lie is measured on the first batch."""
        return None

    def prepare(self, first: Chunk, distance: int) -> None:
        """Prepares nothing, for the same reason."""

    def plan(self, distance: int, at: int, left: int | None, until_due: int) -> Plan:
        """How the next steps are sent off; the first batch shows how members are best laid out."""
        if self.layout is None:
            return Plan()
        passes = max(self.passes_left - 1, 0)
        batches = self.run.train_source.num_batches or 0
        remaining = None if left is None else (left + passes * batches) * len(self.states)
        return self.steps.train.plan(distance, remaining)

    def ready(self, chunk: Chunk) -> Chunk:
        """The first chunk decides how members lie, and whether they may lie so."""
        if not self.run.step:
            check_used(self, chunk.form)
        if self.layout is None:
            chunk = decide(self, chunk)
        if not self.is_checked:
            if chunk.plan.mode is Mode.SINGLE:
                steps, state = self.steps, self.states[0]
                carry = Training(state, steps.empty_train(state, chunk, None))
                steps.train.precompile((), carry, self.placed(chunk)[0].feed)
            check_wanted(self, self.layout or Layout(1), chunk)
        self.is_whole = False
        return chunk

    @property
    def has_record_loop(self) -> bool:
        """The program of a group sends off steps, and ends no records."""
        return False

    def watch(self) -> Watch:
        """Notes what went off."""
        return _Sent(self)

    # What happens at the moments of a run.

    def begin(self, loaders: Loaders, steps_per_epoch: int | None) -> None:
        """Makes nothing yet: a population that goes on has its states from a checkpoint."""

    def start(self) -> None:
        """Makes the states of members that have none, in place of all that have ended."""
        layout, self.layout = self.layout, None
        self.occupants = [member.number for member in self.fresh]
        pairs = [
            (self.maker.fresh(member.seed, member.values), self.places[n % len(self.places)])
            for n, member in enumerate(self.fresh)
        ]
        self.states = [on_place(*pair) for pair in pairs]
        self.best = [self.rows.copy(variables_of(state)) for state in self.states]
        self.fresh = []
        if (layout := layout or only_layout(self)) is not None:
            group(self, layout)
        if not self.run.step:
            lies = {} if self.parallel is None else {"parallel": self.parallel.recorded()}
            self.parts.logger.log_hyperparams({"members": self.given, **lies})

    def sanity_states(self) -> Sequence[Any]:
        """The first group, when it is known how members lie."""
        return [] if self.layout is None else [evaluated(self.states[0], self.root_keys(0))]

    def one_of(self, metrics: Metrics) -> Metrics:
        """The metrics of the first member."""
        if self.size == 1:
            return metrics
        return jax.tree.map(lambda leaf: leaf[0], jax.device_get(metrics))

    def check_names(self, names: Collection[str]) -> None:
        """Refuses a monitor, or what optimizers follow, that a validation does not give."""
        if self.parts.overrides("on_validation_epoch_end"):
            return  # it may add metrics
        evaluations = evaluations_of(self.states[0]) if self.states else None
        metrics = evaluations.metrics if evaluations is not None else ()
        names = {*names, *self.run.validations.known_later([*self.followed, *metrics])}
        check_names(self.scheduler, self.parts.monitor, names, ("val",))
        if evaluations is not None:
            check_metrics(evaluations, names)

    def check_training_names(self, names: Collection[str]) -> None:
        """Refuses what follows a metric that training does not give."""
        phases = ("train",) if self.is_validated else ("train", "val")
        check_names(self.scheduler, self.parts.monitor, names, phases)

    def on_training_start(self) -> None:
        """Calls nothing: a population has no single state to call hooks with."""

    def epochs_left(self) -> int:
        """Passes until the last member has trained for its epochs."""
        return self.passes_left - (self.run.stage is Stage.TRAIN)

    def on_epoch_start(self) -> None:
        """Calls nothing."""

    def train(self, loader: Any) -> None:
        """Trains on one pass over the data, and gives each member its metrics."""
        run = self.run
        metrics = run_epoch(self, run.train_source)
        if metrics is None:  # resumed where no batch was left
            counted = {int(number): tuple(kept) for number, kept in self.counted.items()}
            if run.counters.is_validated:
                counted |= {m.number: (0, 0, m.metrics) for m in self.training}
            if not counted:
                raise TrainingError(
                    f"Received a loader without the rest of epoch {run.epoch}, in which the "
                    "population was saved; expected the data of the run that goes on. Give the "
                    "same train_loader."
                )
        else:
            with run.ledger.spent("device"):
                counted = _content.counted(self.by_member(metrics), self.parts.derive)
        self._count(counted, epochs=1)
        self.counted = {}
        run.metrics.epoch = None
        run.count(stage=Stage.VALIDATE)

    def _count(self, counted: Mapping[int, tuple[int, int, ScalarMetrics]], epochs: int) -> None:
        """Gives each member its metrics of training; one whose steps were not finite ends.

        Args:
            counted: batches, those left out, and means, since this was last called.
            epochs: epochs that end here.
        """
        self.in_pass = tuple(member.number for member in self.training)
        for member in self.training:
            batches, left_out, metrics = counted[member.number]
            step = member.step + batches
            after = replace(member, epoch=member.epoch + epochs, step=step, metrics=metrics)
            if left_out and self.parts.loop.on_nonfinite == "stop":
                reason = f"the loss or a gradient was not finite at step {step + 1}"
                after = replace(after, status=Status.DIVERGED, reason=reason)
            self.members[member.number] = after

    def next_events(self, step: int) -> Iterator[int]:
        """Nobody looks at states between two steps."""
        return iter(())

    def after_steps(self) -> None:
        """Calls nothing."""

    @property
    def must_write_at_once(self) -> bool:
        """Nobody looks at states with a record."""
        return False

    def unpack(self, due: Due) -> list[list[Metrics]]:
        """The metrics of each row at a record."""
        found: list[Metrics] = []
        like: Any = self.run.metrics.interval
        for packed, form in zip(due.packed, like, strict=True):
            if self.size == 1:
                found += unpack(packed, like=form)[:1]
            else:
                one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), form)
                host: Mapping[str, Any] = jax.device_get(packed)
                found += unpack({name: rows[:, 0] for name, rows in host.items()}, like=one)
        return [found]

    def on_record(
        self, step: int, metrics: list[Metrics], speed: Mapping[str, float]
    ) -> ScalarMetrics:
        """Hands the metrics since the last record to the loggers."""
        rows = zip(self.occupants, metrics, strict=False)  # rows that fill up a group come last
        values = {
            number: computed(own, RECORD, self.parts.derive)
            for number, own in rows
            if number >= 0 and self.members[number].is_training
        }
        with self.run.ledger.spent("logging"):
            for number, own in values.items():
                values[number] = log_histograms(self.parts.logger, own, step, number)
            record = record_of(values)
            self.hooks.log_metrics({**record, **speed}, step)
        return shown(record)

    def pause(self, metrics: list[Metrics] | None) -> None:
        """Gives each member its metrics since the last validation."""
        run = self.run
        if metrics is None:
            self.in_pass = tuple(member.number for member in self.training)
            return
        self._count(_content.counted(self.by_member(metrics), self.parts.derive), epochs=0)
        run.metrics.interval = None  # members may come to other rows
        run.count(stage=Stage.MIDWAY)

    def go_on(self) -> None:
        """Goes on with the members of now."""
        stage = Stage.TRAIN if self.run.stage is Stage.MIDWAY else self.run.stage
        self.run.count(stage=stage, validated=self.run.step)
        self.is_whole = True

    def is_validation_due(self) -> bool:
        """Whether it is time, or a member has trained for all of its epochs."""
        run, training = self.run, self.training
        is_last = any(member.epoch == self.num_epochs for member in training)
        is_time = run.validations.ask(run.step, run.epoch)
        if is_last or run.stop_reason is not None:
            run.validations.take_all()
        is_needed = is_last or is_time or run.stop_reason is not None or not self.is_validated
        return bool(training) and is_needed

    def validate(self, loader: Any) -> None:
        """Validates all members; see there."""
        validate_members(self, loader)

    def end_epoch(self, *, is_validated: bool) -> ScalarMetrics:
        """Writes what has ended to its folder, and gives up groups that nobody needs."""
        record = {} if is_validated else record_epoch(self)
        for member in self.members:
            if not member.is_training and member.number not in self.written and self.training:
                write_best(self, member)
        shrink(self)
        if is_validated:
            self.run.count(validated=self.run.step)
        self.is_whole = True
        return shown(record)

    def end_training(self) -> None:
        """Hands over the best models that are not written yet, and the table."""
        for member in self.members:
            write_best(self, member)
        self._write_table()

    def test(self, loader: Any) -> ScalarMetrics:
        """Tests the best model of each member; the table has the results."""
        evaluate_best(self, loader)
        self._write_table()
        return {}

    def _write_table(self) -> None:
        what = "members.csv and epochs.csv"
        save_small(self.parts, self.run, what, write_table, table_of(self), self.parts.folder)

    def on_exception(self, error: BaseException) -> None:
        """Calls nothing."""

    def close(self) -> None:
        """Ends the threads of the lanes."""
        self.lanes.close()

    # What a resume checkpoint holds.

    def check_whole(self) -> None:
        """Refuses states that are not of one moment.

        Raises:
            TrainingError: saying where to go on from.
        """
        if not self.is_whole:
            raise TrainingError(
                "Received an exception while some members were further than others; expected all "
                "at one step. The last resume checkpoint is the place to go on from: resume=True."
            )

    def content(self) -> Saved:
        """The states and best variables, and who the members are."""
        return _content.content(self)

    def find(self, checkpoints: ResumeCheckpoints, step: int | None) -> Resume | None:
        """Reads a checkpoint of the same members."""
        return _content.find(self, checkpoints, step)

    def keep_schedule(self, steps: int) -> None:
        """Makes the optimizer of all members anew, whose functions hold the schedules."""
        self.maker = self.maker.with_optimizer(self.varied.optimizer(steps))

    def take(self, found: Resume) -> None:
        """Goes on with the members of a checkpoint."""
        _content.take(self, found)
