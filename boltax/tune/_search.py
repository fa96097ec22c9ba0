"""A worker's search: its trials in groups, each trained as a population whose places it fills."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boltax._base._monitor import Followed, Monitor, check_monitor, check_monitors, is_better
from boltax._build._remade import write_described
from boltax._build._twin import stand_in_of
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import ConfigurationError, NotSavedError, noting
from boltax.parallel._parallel import Parallel
from boltax.trainer import TrainerModule
from boltax.tune._groups import (
    Description,
    MakeTrainer,
    described_trainer,
    description_of,
    varied_names,
)
from boltax.tune._member_folders import member_folder
from boltax.tune._member_places import at_most
from boltax.tune._members import validation_metrics
from boltax.tune._members_table import MembersTable, Shown
from boltax.tune._population import Population
from boltax.tune._schedulers import (
    Member,
    PopulationView,
    Replace,
    Request,
    Scheduler,
    Status,
    Stop,
)
from boltax.tune._space import SearchSpace, check_arguments_of
from boltax.tune._worker import REASON, Worker

if TYPE_CHECKING:
    import optuna


HYPERPARAMETERS, METRICS, LOG_DIR = "boltax:hyperparameters", "boltax:metrics", "boltax:log_dir"


@dataclass(frozen=True)
class Asked:
    """A trial, with its trainer as far as it is described."""

    trial: "optuna.Trial"
    hyperparameters: Mapping[str, Any]
    trainer: TrainerModule
    description: Description


@dataclass
class Group:
    """The trials that share a program.

    Attributes:
        description: of the first of them.
        waiting: those that have no place yet.
        asked: how many there were so far.
        population: in which they train; None before the first did.
        scheduler: of the population.
    """

    description: Description
    waiting: deque[Asked] = field(default_factory=deque[Asked])
    asked: int = 1
    population: Population | None = None
    scheduler: "Trials | None" = None


class Search:
    """The trials of one worker, from being asked for to their end.

    Args:
        make_trainer: from hyperparameters to a trainer.
        space: what trials are asked for.
        worker: asks for trials and ends them.
        table: shows the members.
        monitor: the metric that is optimized.
        num_epochs: of each trial.
        population: trials that train at the same time.
        parallel: the mesh over which they are spread.
        validate_every: steps between two validations; None for those of epochs.
    """

    def __init__(
        self,
        make_trainer: MakeTrainer,
        space: SearchSpace,
        worker: Worker,
        table: MembersTable,
        *,
        monitor: Monitor,
        num_epochs: int,
        population: int,
        parallel: Parallel | None = None,
        validate_every: int | None = None,
    ) -> None:
        self.worker, self.table, self.monitor = worker, table, monitor
        self._make_trainer, self._space = make_trainer, space
        self._num_epochs, self._population = num_epochs, population
        self._parallel = parallel
        self.validate_every = validate_every
        self._groups: list[Group] = []
        self._varied = varied_names(make_trainer, space)

    def has_work(self) -> bool:
        """Fills the places with trials; waits when there are none. False at the study's end."""
        while True:
            while self._num_waiting < self._population and self._ask() is not None:
                pass
            if self._num_waiting:
                return True
            if self.worker.is_study_over():
                return False
            self.table.waits()
            self.worker.wait()

    def train_a_group(self, train_loader: Any, val_loader: Any) -> None:
        """Trains the trials of the group with most of them, and those that follow in it."""
        group = max(self._groups, key=lambda group: len(group.waiting))
        first = list(group.waiting)[: self._population]
        for _ in first:
            group.waiting.popleft()
        values = [asked.description.values for asked in first]
        if group.population is None or group.scheduler is None:
            trainer = self._trainer(first[0])
            group.scheduler = Trials(self, group, trainer)
            group.population = Population(
                trainer,
                values,
                scheduler=group.scheduler,
                parallel=at_most(self._parallel, len(values)),
            )
            group.scheduler.begin(0, first)
            group.scheduler.show(())
            with suppress(NotSavedError):  # told, and the trials have their values
                group.population.train_model(
                    train_loader,
                    val_loader,
                    self._num_epochs,
                    validate_every=self.validate_every,
                )
        else:
            group.scheduler.begin(len(group.population.members), first)
            group.scheduler.show(())
            with suppress(NotSavedError):
                group.population.train_further(values)
        group.scheduler.settle(group.population.members)
        group.population.release()

    def next_of(self, group: Group) -> Asked | None:
        """The next trial for a place in a group; None when there is none."""
        while not group.waiting and self._num_waiting < self._population:
            if self._ask() is None:
                return None
        return group.waiting.popleft() if group.waiting else None

    def expected(self, group: Group) -> int:
        """Trials that a group will probably get yet: its part of all of them, as it was so far."""
        part = group.asked / sum(group.asked for group in self._groups)
        return len(group.waiting) + round(part * self.worker.trials_left())

    @property
    def _num_waiting(self) -> int:
        return sum(len(group.waiting) for group in self._groups)

    def _ask(self) -> Asked | None:
        """Asks for a trial and puts it into its group."""
        trial = self.worker.ask()
        if trial is None:
            return None
        with noting("the space or make_trainer", f"trial {trial.number}: {trial.params}"):
            hyperparameters = self._space.hyperparameters(trial)
            if self._space.function is not None:
                check_arguments_of(self._make_trainer, hyperparameters)
            trial.set_user_attr(HYPERPARAMETERS, hyperparameters)
            trainer = described_trainer(self._make_trainer, hyperparameters)
        description = description_of(trainer).varying(self._varied)
        asked = Asked(trial, hyperparameters, trainer, description)
        for group in self._groups:
            if group.description.shares_program(description):
                group.waiting.append(asked)
                group.asked += 1
                return asked
        self._groups.append(Group(description, deque([asked])))
        return asked

    def _trainer(self, asked: Asked) -> TrainerModule:
        """The trainer of a group's population: that of its first trial."""
        trainer: TrainerModule = self._make_trainer(**asked.hyperparameters)
        if not description_of(trainer).varying(self._varied).shares_program(asked.description):
            raise ConfigurationError(
                "Received a make_trainer that makes another trainer at each call for "
                f"{dict(asked.hyperparameters)!r}; expected one that follows from these alone. "
                "Write the trainer's arguments into make_trainer, or into the space."
            )
        if metrics := validation_metrics(trainer):
            check_monitors([Followed(*self.monitor)], metrics, ("val",))
        # The table shows more than the trainer would, and the study knows what is optimized.
        return stand_in_of(trainer, is_silent=True, monitor=self.monitor)


class Trials(Scheduler):
    """Reports the members of a population to their trials, and fills the places that get free.

    Args:
        search: where trials come from and go to.
        group: the trials' group.
        trainer: of the population.
    """

    def __init__(self, search: Search, group: Group, trainer: TrainerModule) -> None:
        self._search, self._group, self._trainer = search, group, trainer
        self._running: dict[int, Asked] = {}
        self._best: dict[int, Mapping[str, Any]] = {}

    def begin(self, number: int, trials: Sequence[Asked]) -> None:
        """Notes which members are which trials, from a member's number on."""
        self._running |= dict(enumerate(trials, number))

    def on_validation_epoch_end(self, view: PopulationView) -> list[Request]:
        """Reports all members, and asks for what follows."""
        requests: list[Request] = []
        following = len(view.members)
        for number, asked in list(self._running.items()):
            reason = self._report(view.members[number], asked)
            if reason is None:
                continue
            del self._running[number]
            if (new := self._search.next_of(self._group)) is not None:
                requests.append(Replace(number, new.description.values, reason))
                self.begin(following, [new])
                following += 1
            elif view.members[number].is_training:
                requests.append(Stop(number, reason))
        self.show(view.members)
        return requests

    def expected_passes(self, num_epochs: int) -> int:
        """Passes of the trials to come count as well, as often as they fill the places."""
        places = max(len(self._running), 1)
        return num_epochs * math.ceil(1 + self._search.expected(self._group) / places)

    def settle(self, members: Sequence[Member]) -> None:
        """Ends the trials whose members have ended without a validation: all have diverged."""
        for number, asked in list(self._running.items()):
            self._report(members[number], asked)
            del self._running[number]

    def show(self, members: Sequence[Member]) -> None:
        """Shows the members that train now; before the first validation there are none to see."""
        name = self._search.monitor[0]
        rows: list[Shown] = []
        for number, asked in self._running.items():
            member = members[number] if number < len(members) else None
            best = self._best.get(asked.trial.number)
            rows.append(
                Shown(
                    asked.trial.number,
                    asked.hyperparameters,
                    member.epoch if member else 0,
                    float(member.metrics[name]) if member and name in member.metrics else None,
                    None if best is None else float(best[name]),
                )
            )
        self._search.table.show(rows)

    def _report(self, member: Member, asked: Asked) -> str | None:
        """Reports a member to its trial, and ends the trial when it is over: says why."""
        search, trial = self._search, asked.trial
        folder = member_folder(self._trainer.log_dir, member.number)
        attrs: dict[str, Any] = {LOG_DIR: str(folder)}
        if not RunDirectory(folder).hparams.exists():  # else the population writes its own
            write_described(asked.trainer, self._trainer._made.adapter.name, folder)
        if member.status is Status.DIVERGED:
            search.worker.end(trial, None, {REASON: member.reason, **attrs})
            return self._ended(asked, "diverged", member, member.reason)
        check_monitor(search.monitor, member.metrics)
        value = float(member.metrics[search.monitor[0]])
        if is_better([search.monitor], member.metrics, best := self._best.get(trial.number)):
            self._best[trial.number] = best = {**member.metrics, "epoch": member.epoch}
        by_steps = search.validate_every is not None
        where = f"step {member.step}" if by_steps else f"epoch {member.epoch}"
        reason = search.worker.report(trial, value, member.step if by_steps else member.epoch)
        if member.status is Status.FINISHED:
            attrs[METRICS] = {n: v for n, v in (best or {}).items() if isinstance(v, int | float)}
            of_best = None if best is None else float(best[search.monitor[0]])
            search.worker.end(trial, of_best, {REASON: member.reason, **attrs})
            return self._ended(asked, "complete", member, member.reason)
        if reason == "pruned":
            reason = f"pruned after {where}"
            search.worker.end(trial, None, {REASON: reason, **attrs})
        return reason and self._ended(asked, "pruned", member, reason)

    def _ended(self, asked: Asked, state: str, member: Member, reason: str) -> str:
        best = self._best.pop(asked.trial.number, None)
        name = self._search.monitor[0]
        value = None if best is None else float(best[name])
        shown = Shown(asked.trial.number, asked.hyperparameters, member.epoch, value, value)
        self._search.table.ended(shown, state)
        return reason
