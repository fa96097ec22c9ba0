"""`Population`: many members trained at once, with one compiled program for all of them.

    from boltax.tune import Population

    trainer = Classifier(MLP, {"features": 64}, {"optimizer": "adamw"}, exmp_input=batch)
    members = [{"seed": seed, "lr": lr} for seed in range(4) for lr in (1e-3, 3e-3, 1e-2)]
    population = Population(trainer, members)
    table = population.train_model(train_loader, val_loader, num_epochs=10)
    print(table)
    model = population.member(table.best()["member"]).bind_model()

The loop is in `_loop.py`, what schedulers may ask for in `_schedulers.py`, where a hyperparameter
lives in `_values.py`.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from boltax._build._arguments import check_positive
from boltax._build._compiled import compile_for
from boltax._build._methods import is_trainer, overrides
from boltax._inspect._preflight import memory_of
from boltax._loop._begin import check_followed
from boltax._loop._run import planned_steps
from boltax._loop._saving import save_trigger
from boltax._process._signals import Interrupted
from boltax._step._state import variables_of
from boltax._step._steps import Steps
from boltax.checkpoint._lock import RunLock
from boltax.data._source import as_source
from boltax.errors import ConfigurationError, TrainingError
from boltax.optim._plateau import check_metrics, first_evaluations
from boltax.parallel._devices import Device, Devices, default_device, devices_of, on_device
from boltax.tune._layout import group, only_layout
from boltax.tune._loop import train
from boltax.tune._run import PopulationRun, validation_metrics
from boltax.tune._saved import (
    restore_population,
    save_population,
    table_of,
    trainer_of,
    write_table,
)
from boltax.tune._schedulers import Member, Scheduler
from boltax.tune._states import MemberStates
from boltax.tune._table import Table
from boltax.tune._values import Given, Varied, read_members

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

_HOOKS = (
    "init_model",
    "init_optimizer",
    "create_jitted_functions",
    "on_training_start",
    "train_epoch",
    "on_training_epoch_end",
    "eval_model",
    "on_validation_epoch_end",
    "on_training_end",
)
"""Methods of a trainer that a population does not call, and that a trainer may not rely on."""


class Population:
    """Trains many members at once: one step of all of them in one compiled program.

    Members differ in their seed and in numbers: of the optimizer (``lr``, ``weight_decay``,
    ``gradient_clip``, ``l2_regularization``, and its own arguments that optax can compute with; of
    one of several ``"generator.lr"``), and of the trainer's own hyperparameters that are floats,
    which `loss_function` reads as ``model.hparams[name]``. A number that a member leaves out is the
    trainer's. Whatever changes shapes or the program (layer sizes, the optimizer, the schedule's
    form, its warmup) makes a group of its own: one population for each.

    A member equals the single run of its seed and hyperparameters over the same loader: up to
    rounding where members share a program, bit for bit where they train in turn. Which of the two
    is faster, and whether several devices are, is measured before the first step, in a tenth of the
    time that training takes at most; `members_per_step` and `devices` override it.

    Hooks and callbacks of the trainer are not called, since there is no single state to call them
    with: a `Scheduler` takes their place.

    Args:
        trainer: describes what all members share. It is not trained; its folder becomes that of
            the population.
        members: a dict for each: ``"seed"`` and hyperparameters.
        scheduler: asked after each validation what to stop, replace or overwrite.
        members_per_step: how many members go through one program: ``"auto"`` measures, 1 has them
            train in turn, with the step of a single run. Groups of another number are an error
            where they do not fit into the memory, by the numbers that ``"auto"`` goes by, and not
            made smaller in silence: what you write is what is run, and to run out of memory would
            end the process at a later step, or the first time that all is saved.
        devices: over which members are spread, as many on each: a number of the local ones, or a
            sequence of `jax.Device`. By default all local ones, where that was measured to be
            faster than one.

    Raises:
        UnknownNameError: for a hyperparameter that does not exist.
        ConfigurationError: for one that cannot vary, for a trainer with hooks or callbacks, and for
            devices that there are not.

    Example:
        >>> import flax.linen as nn, numpy as np, boltax as bx
        >>> class Regressor(bx.TrainerModule):
        ...     def loss_function(self, model, batch, train):
        ...         return ((model(batch[0]) - batch[1]) ** 2).mean(), {}
        >>> inputs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        >>> loader = bx.data.ArrayLoader((inputs, inputs.sum(1, keepdims=True)), batch_size=16)
        >>> trainer = Regressor(
        ...     nn.Dense, {"features": 1}, {"optimizer": "sgd", "schedule": "constant"},
        ...     exmp_input=next(iter(loader)), enable_progress_bar=False,
        ...     logger_params={"logger_type": "none"})
        >>> population = Population(trainer, [{"lr": 0.001}, {"lr": 0.1}], members_per_step=2)
        >>> table = population.train_model(loader, loader, num_epochs=3)
        >>> table.best()["lr"]
        0.1
        >>> population.member(1).bind_model()(inputs[:2]).shape
        (2, 1)
    """

    def __init__(
        self,
        trainer: "TrainerModule",
        members: Iterable[Mapping[str, Any]],
        *,
        scheduler: Scheduler | None = None,
        members_per_step: int | str = "auto",
        devices: Devices = None,
    ) -> None:
        _check_trainer(trainer)
        if members_per_step != "auto":
            _check_whole(members_per_step)
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise ConfigurationError(
                f"Received scheduler={scheduler!r}; expected an object of a class derived from "
                "boltax.tune.Scheduler. Write scheduler=SuccessiveHalving(('val/acc', 'max'))."
            )
        self.trainer = trainer
        self.scheduler = scheduler or Scheduler()
        self._given = read_members(trainer, members)
        self._varied = Varied(trainer, self._given)
        self._members_per_step = members_per_step
        self._devices, self._is_spread = devices_of(devices), devices is not None
        self._steps: dict[tuple[int, Device], Steps] = {}
        self._run: PopulationRun | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """All members that there ever were, by number, as they are now."""
        if self._run is not None:
            return tuple(self._run.members)
        return tuple(self._fresh(self._given))

    @property
    def table(self) -> Table:
        """One row for each member, as it is now.

        Raises:
            TrainingError: before the first `train_model`.
        """
        return table_of(self._started())

    @property
    def log_dir(self) -> str:
        """The folder of the population: that of the trainer."""
        return self.trainer.log_dir

    def train_model(
        self,
        train_loader: Any,
        val_loader: Any = None,
        num_epochs: int = 500,
        *,
        resume: bool = False,
    ) -> Table:
        """Trains all members for a number of epochs.

        Members see the same batches in the same order. One that takes the place of another trains
        for `num_epochs` too, from the loader's next epoch on.

        Args:
            train_loader: anything that yields batches.
            val_loader: each member is validated on it every `check_val_every_n_epoch` epochs, and
                after its last; without one, the newest state of a member is its best.
            num_epochs: epochs of each member.
            resume: go on where the newest resume checkpoint in the folder was saved, or start when
                there is none.

        Returns:
            The table of the members, with the metrics of their best validation. It is also in the
            folder, as ``members.csv`` and ``epochs.csv``.

        Raises:
            ConfigurationError: when groups of `members_per_step` do not fit into the memory.
            DataError: for a loader or a batch that cannot be used.
            MetricsError: when nothing tells which epoch of a member is its best, or a validation
                lacks what the schedule follows.
            CheckpointError: when a checkpoint is damaged, or is that of other members.
            SystemExit: after SIGTERM, SIGUSR1 or Ctrl-C, when the population is saved; see
                `TrainerModule.train_model`.
        """
        check_positive(num_epochs=num_epochs)
        run = self._run = self._prepared(train_loader, val_loader, num_epochs)
        return self._train(run, lambda: (resume and restore_population(run)) or self._start(run))

    def train_further(self, members: Iterable[Mapping[str, Any]]) -> Table:
        """Trains new members in the programs of those that have ended, on the same data.

        They get the next free numbers, and train for as many epochs as the others did.

        Args:
            members: as for the constructor, with the same hyperparameters.

        Returns:
            The table of all members.

        Raises:
            TrainingError: before the first `train_model`.
            ConfigurationError: for members that cannot share the program.
        """
        run, chosen = self._started(), self._started().layout
        new = self._fresh(read_members(self.trainer, members), len(run.members))
        run.members += new

        def begin() -> None:
            run.layout = None
            self._place(run, new)
            if chosen is not None:
                group(run, chosen)

        return self._train(run, begin)

    def release(self) -> None:
        """Gives up the memory on the device of members that have ended; their best are on disk."""
        run = self._started()
        if not run.training:
            run.states, run.best, run.occupants = [], [], []

    def _train(self, run: PopulationRun, begin: Callable[[], Any]) -> Table:
        with RunLock(self.log_dir), run.signals, jax.default_device(run.devices[0]):
            try:
                begin()
                run.is_saveable = True
                passes = range(run.epoch, run.epoch + run.passes_left)
                bar = self.trainer.tracker(train(run), desc="Epochs", total=len(passes))
                for _ in bar:
                    pass
                save_population(run)
                run.saver.wait()
                write_table(self.table, Path(self.log_dir))
                self.trainer.logger.finalize("success")
            except BaseException as error:
                self._end_early(run, error)
                if run.signals.received is None:
                    raise
            finally:
                run.lanes.close()
                self.trainer._made.progress.close()
                self.trainer._made.progress.note(run.ledger.report())
        if run.signals.received is not None:
            run.signals.leave()
        return self.table

    def member(self, number: int) -> "TrainerModule":
        """A member as an ordinary trainer, which evaluates, saves, loads, binds and trains on.

        Its folder is ``members/<number>`` in that of the population, from which
        `load_from_checkpoint` loads it. A member that has trained to the end holds its last state,
        as after `train_model`, and `load_model` loads its best; one that ended before holds its
        best.

        Args:
            number: that of the member, its row in the table.

        Raises:
            TrainingError: before the first `train_model`.
            ConfigurationError: when there is no such member.
        """
        run = self._started()
        if type(number) is not int or not 0 <= number < len(run.members):
            raise ConfigurationError(
                f"Received member({number!r}); expected the number of a member, from 0 to "
                f"{len(run.members) - 1}."
            )
        member = run.members[number]
        trainer = trainer_of(self.trainer, self._varied, member)
        if run.has_row(number) and (member.is_training or member.epoch == run.num_epochs):
            state = run.rows.row(run.states, run.size, run.row_of(number))
            trainer.state = on_device(state, default_device())
        else:
            trainer.load_weights(trainer.log_dir)
        return trainer

    def _started(self) -> PopulationRun:
        if self._run is None:
            raise TrainingError(
                "Received a question about members that have not been trained; expected "
                "train_model first. Write population.train_model(train_loader, val_loader)."
            )
        return self._run

    def _prepared(self, train_loader: Any, val_loader: Any, num_epochs: int) -> PopulationRun:
        trainer = self.trainer
        source = as_source(
            train_loader, name="train_loader", steps_per_epoch=trainer.loop.steps_per_epoch
        )
        total_steps = planned_steps(num_epochs, source.num_batches, None)
        size = self._members_per_step
        optimizer = self._varied.optimizer(total_steps)
        check_followed(optimizer.optimizer.metrics, val_loader)
        followed = first_evaluations(optimizer.optimizer.metrics)
        if followed is not None and (metrics := validation_metrics(trainer)):
            check_metrics(followed, metrics)
        return PopulationRun(
            trainer=trainer,
            varied=self._varied,
            maker=MemberStates(trainer, self._varied, optimizer),
            scheduler=self.scheduler,
            num_epochs=num_epochs,
            total_steps=total_steps,
            source=source,
            val_source=None if val_loader is None else as_source(val_loader, name="val_loader"),
            make_steps=self._steps_of,
            wanted=size if isinstance(size, int) else None,
            devices=self._devices[: len(self._given)],
            memory=memory_of(self._devices[0]),
            is_spread=self._is_spread,
            is_checked=size == "auto",
            members=self._fresh(self._given),
            given=[{"seed": given.seed, **given.values} for given in self._given],
            save_trigger=save_trigger(trainer.checkpoint),
        )

    def _fresh(self, given: Iterable[Given], first: int = 0) -> list[Member]:
        """Members before their first step, from a number on."""
        return [
            Member(number=number, seed=one.seed, values=self._varied.complete(one.values, number))
            for number, one in enumerate(given, first)
        ]

    def _place(self, run: PopulationRun, members: Sequence[Member]) -> None:
        devices = itertools.cycle(run.devices)
        fresh = (run.maker.fresh(member.seed, member.values) for member in members)
        run.states = [on_device(*pair) for pair in zip(fresh, devices, strict=False)]
        run.best = [run.rows.copy(variables_of(state)) for state in run.states]
        run.occupants = [member.number for member in members]

    def _start(self, run: PopulationRun) -> None:
        self._place(run, run.members)
        if (layout := only_layout(run)) is not None:
            group(run, layout)
        self.trainer.logger.log_hyperparams({"members": run.given})

    def _steps_of(self, size: int, device: Device) -> Steps:
        steps = self.trainer._made.steps
        if size == 1 and device == self._devices[0]:
            return steps
        if (size, device) not in self._steps:
            members = size if size > 1 else None
            self._steps[size, device] = compile_for(
                steps.train_step,
                steps.eval_step,
                self.trainer._made.loss_steps.predict_step,
                loop=self.trainer.loop,
                progress=self.trainer._made.progress,
                where=lambda: "the start",
                members=members,
            )
        return self._steps[size, device]

    def _end_early(self, run: PopulationRun, error: BaseException) -> None:
        """Saves what can be saved; nothing here hides the error."""
        try:
            if run.is_saveable and not isinstance(error, Interrupted):
                save_population(run)
            run.saver.wait()
        except Exception as failure:  # noqa: BLE001 - told with the error that it follows
            error.add_note(f"the population could not be saved: {failure}")
        finally:
            is_interrupted = run.signals.received is not None
            self.trainer.logger.finalize("success" if is_interrupted else "failed")


def _check_trainer(trainer: Any) -> None:
    """Refuses a trainer that relies on what a population does not do."""
    if not is_trainer(trainer):
        raise ConfigurationError(
            f"Received {trainer!r} ({type(trainer).__name__}) as trainer; expected a "
            "TrainerModule, made but not trained. Write Population(Classifier(...), members)."
        )
    hooks = [name for name in _HOOKS if overrides(trainer, name)]
    callbacks = [type(callback).__name__ for callback in trainer.callbacks]
    if hooks or callbacks:
        raise ConfigurationError(
            f"Received {trainer._made.name} with {', '.join([*hooks, *callbacks])}, which work "
            "with one state; expected a trainer without hooks and callbacks, since there are "
            "many. Write a boltax.tune.Scheduler for what ends or changes members."
        )
    if trainer.debug:
        raise ConfigurationError(
            "Received a trainer with debug=True; expected a compiled one, since members share a "
            "program. Leave out debug=True, or debug a single run."
        )


def _check_whole(members_per_step: object) -> None:
    is_whole = isinstance(members_per_step, int) and not isinstance(members_per_step, bool)
    if not is_whole or int(str(members_per_step)) < 1:
        raise ConfigurationError(
            f"Received members_per_step={members_per_step!r}; expected 'auto' or a whole number "
            "of at least 1."
        )
