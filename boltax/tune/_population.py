"""`Population`: many members trained at once, with one compiled program for all of them.

    from boltax.tune import Population

    trainer = Classifier(MLP, {"features": 64}, {"optimizer": "adamw"}, exmp_input=batch)
    members = [{"seed": seed, "lr": lr} for seed in range(4) for lr in (1e-3, 3e-3, 1e-2)]
    population = Population(trainer, members)
    table = population.train_model(train_loader, val_loader, num_epochs=10)
    print(table)
    model = population.member(table.best()["member"]).bind_model()

How the loop trains members is in `_trainees.py`, what schedulers may ask for in `_schedulers.py`,
where a hyperparameter lives in `_values.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import jax

from boltax._base._evaluation import all_names
from boltax._base._triggers import Every
from boltax._base._whole import is_whole
from boltax._build._compiled import compile_for
from boltax._build._methods import is_trainer, overrides
from boltax._build._parts import Parts, live_of, parts_of, renewed_parts
from boltax._inspect._preflight import memory_of
from boltax._loop._asked import asked
from boltax._loop._data_module import loaders_of
from boltax._loop._fit import fit
from boltax._loop._run import Run
from boltax._loop._start import start_run
from boltax._loop._trainees import Loaders
from boltax._step._steps import Steps
from boltax.checkpoint._lock import RunLock
from boltax.errors import ConfigurationError, TrainingError
from boltax.optim._plateau import check_followed, check_metrics, first_evaluations
from boltax.parallel._devices import Devices, default_device
from boltax.parallel._parallel import Parallel
from boltax.parallel._placement import Placement
from boltax.parallel._places import Place, first_of, on_place, placement_at
from boltax.trainer import TrainerModule
from boltax.tune._ensemble import Ensemble, ensemble_of
from boltax.tune._member_folders import table_of, trainer_of
from boltax.tune._member_places import member_places
from boltax.tune._members import validation_metrics
from boltax.tune._predictions import Predictions, predictions
from boltax.tune._schedulers import Member, Scheduler, Status, check_names
from boltax.tune._states import MemberStates, loaded_variables
from boltax.tune._table import Table
from boltax.tune._trainees import MemberTrainees
from boltax.tune._values import Given, Varied, read_members

_HOOKS = (
    "init_model",
    "init_optimizer",
    "create_jitted_functions",
    "on_training_start",
    "train_epoch",
    "on_training_epoch_end",
    "eval_model",
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

    Weights that the trainer has by `TrainerModule.load_weights` all members begin with; everything
    else follows from their seeds.

    A member equals the single run of its seed and hyperparameters over the same loader: up to
    rounding where members share a program, bit for bit where they train in turn. Which of the two
    is faster, and whether several devices are, is measured before the first step, in a tenth of the
    time that training takes at most; `members_per_step` and `devices` override it.

    Of the trainer's hooks `on_validation_epoch_end` is called, for each member with its metrics and
    with its state in `trainer.state`; what it adds counts as a metric of that member. Others, and
    callbacks, are not, since there is no single state to call them with: a `Scheduler` takes their
    place.

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
        parallel: a mesh in which members lie along the axis ``"members"``, each of them on the rest
            of it, as a single run with this `parallel` would: ``Parallel(mesh={"members": 4,
            "data": 2})`` has four members train at the same time, each on two devices. A mesh
            without this axis has each of them on all devices. Any number of members will do from
            the size of the axis on. ``devices=4`` is short for ``mesh={"members": 4}``.

    Raises:
        UnknownNameError: for a hyperparameter that does not exist.
        ConfigurationError: for one that cannot vary, for a trainer with hooks or callbacks, for
            devices that there are not, and for a mesh with more places than members.

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
        trainer: TrainerModule,
        members: Iterable[Mapping[str, Any]],
        *,
        scheduler: Scheduler | None = None,
        members_per_step: int | str = "auto",
        devices: Devices = None,
        parallel: str | Parallel | None = None,
    ) -> None:
        _check_trainer(trainer)
        if members_per_step != "auto":
            _check_whole(members_per_step)
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise ConfigurationError(
                f"Received scheduler={scheduler!r}; expected an object of a class derived from "
                "boltax.tune.Scheduler. Write scheduler=SuccessiveHalving(('val/acc', 'max'))."
            )
        _refuse_parallel(trainer)
        self.trainer = trainer
        self.scheduler = scheduler or Scheduler()
        self._given = read_members(trainer, members)
        self._varied = Varied(trainer, self._given)
        self._members_per_step = members_per_step
        self._parallel, self._places = member_places(parallel, devices, len(self._given))
        self._is_spread = devices is not None or parallel is not None
        self._steps: dict[tuple[int, Place], Steps] = {}
        self._trainees: MemberTrainees | None = None
        self._loaders = Loaders(None)
        self._loaded: dict[tuple[str, ...], Any] | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """All members that there ever were, by number, as they are now."""
        if self._trainees is not None:
            return tuple(self._trainees.members)
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
        train_loader: Any = None,
        val_loader: Any = None,
        num_epochs: int | None = None,
        *,
        test_loader: Any = None,
        max_steps: int | None = None,
        max_time: str | float | timedelta | None = None,
        schedule_steps: int | None = None,
        validate_every: int | Every | None = None,
        validate_at_start: bool = False,
        resume: bool = False,
    ) -> Table:
        """Trains all members for a number of epochs.

        Members see the same batches in the same order. One that takes the place of another trains
        for `num_epochs` too, from the loader's next epoch on.

        Args:
            train_loader: anything that yields batches; or a data module, see
                `TrainerModule.train_model`.
            val_loader: each member is validated on it every `check_val_every_n_epoch` epochs, or
                as `validate_every` says, and after its last; without one, the newest state of a
                member is its best.
            num_epochs: epochs of each member.
            test_loader: the best model of each member is tested on it at the end; the table has the
                results, as ``test/...``.
            max_steps: stop after so many steps, if the epochs have not ended before.
            max_time: stop after so much time: seconds, a `timedelta`, or ``"hh:mm:ss"``.
            schedule_steps: see `TrainerModule.train_model`.
            validate_every: validate after every so many steps of the population, wherever in an
                epoch that is. The scheduler is asked each time. A member that takes the place of
                another within an epoch trains the rest of it as the first of its own.
            validate_at_start: also validate before the first step; the scheduler is not asked.
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
            NotSavedError: at the end, when something could not be written; `table` has the rest.
            SystemExit: after SIGTERM, SIGUSR1 or Ctrl-C, when the population is saved; see
                `TrainerModule.train_model`.
        """
        wanted = asked(
            num_epochs=num_epochs,
            max_steps=max_steps,
            max_time=max_time,
            schedule_steps=schedule_steps,
            validate_every=validate_every,
            validate_at_start=validate_at_start,
        )
        loaders = loaders_of(self.trainer.hparams, train_loader, val_loader, test_loader)

        def begin(lock: RunLock) -> MemberTrainees:
            # first: what is refused changes nothing
            parts = parts_of(self.trainer)
            run = start_run(parts, loaders, wanted)
            prepared = self._prepared(parts, run, loaders.val)
            prepared.parts = renewed_parts(self.trainer, lock, resume)
            return prepared

        return self._train(begin, loaders, resume)

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
        trainees = self._started()
        new = self._fresh(read_members(self.trainer, members), len(trainees.members))
        trainees.members += new

        def begin(_: RunLock) -> MemberTrainees:
            trainees.fresh = new
            trainees.run.limit_reached, trainees.run.is_cut = None, False
            return trainees

        return self._train(begin, self._loaders, False)

    def release(self) -> None:
        """Gives up the memory on the device of members that have ended; their best are on disk."""
        trainees = self._started()
        if not trainees.training:
            trainees.states, trainees.best, trainees.occupants = [], [], []

    def _train(
        self, begin: Callable[[RunLock], MemberTrainees], loaders: Loaders, resume: bool
    ) -> Table:
        def noted(lock: RunLock) -> MemberTrainees:
            # noted when it begins, so that its members can be asked for after an exception
            self._trainees, self._loaders = begin(lock), loaders
            return self._trainees

        with jax.default_device(first_of(self._places[0])):
            fit(noted, self.log_dir, loaders, resume)
        return self.table

    def member(self, number: int) -> TrainerModule:
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
        trainees = self._started()
        if not is_whole(number, 0) or number >= len(trainees.members):
            raise ConfigurationError(
                f"Received member({number!r}); expected the number of a member, from 0 to "
                f"{len(trainees.members) - 1}."
            )
        member = trainees.members[number]
        place = self._places[0]
        own = place.parallel if isinstance(place, Placement) else None
        trainer = trainer_of(self.trainer, self._varied, member, own)
        if trainees.has_row(number) and member.status in (Status.TRAINING, Status.FINISHED):
            row = trainees.row_of(number)
            state = trainees.rows.row(trainees.states, trainees.size, row)
            own = trainer._made.placement
            trainer.state = on_place(state, default_device() if own.is_one else own)
        else:
            trainer.load_weights(trainer.log_dir)
        return trainer

    def predict(self, loader: Any) -> Predictions:
        """What the best model of each member predicts for a whole loader: an ensemble.

        Args:
            loader: anything that yields batches.

        Returns:
            The outputs ``[members, examples, ...]``, with their ``mean()`` and ``spread()``.

        Raises:
            TrainingError: before the first `train_model`, or when no member has a best model.
        """
        with jax.default_device(first_of(self._places[0])):
            return predictions(self._started(), loader)

    def ensemble(self) -> Ensemble:
        """The best models of all members as one: ``ensemble(inputs)`` is the mean of what they say.

        ``ensemble.spread(inputs)`` is how much they differ. For a whole loader see `predict`.

        Raises:
            TrainingError: before the first `train_model`, or when no member has a best model.
        """
        return ensemble_of(self._started())

    def _started(self) -> MemberTrainees:
        if self._trainees is None:
            raise TrainingError(
                "Received a question about members that have not been trained; expected "
                "train_model first. Write population.train_model(train_loader, val_loader)."
            )
        return self._trainees

    def _prepared(self, parts: Parts, run: Run, val_loader: Any) -> MemberTrainees:
        trainer, size = self.trainer, self._members_per_step
        if self._loaded is None:  # before a member's state is the trainer's
            self._loaded = loaded_variables(trainer)
        optimizer = self._varied.optimizer(run.limits.schedule_steps or run.limits.total_steps)
        check_followed(optimizer.optimizer.metrics, val_loader)
        followed = first_evaluations(optimizer.optimizer.metrics)
        is_followed = trainer.monitor or hasattr(self.scheduler, "monitor")
        metrics = validation_metrics(trainer) if followed is not None or is_followed else {}
        evaluations = run.validations.evaluations
        if any(one.function is not None for one in evaluations.values()):
            metrics = {}  # nobody knows what it gives
        elif any(evaluations):
            metrics = dict.fromkeys(all_names(evaluations, metrics))
        if followed is not None and metrics:
            check_metrics(followed, metrics)
        is_added = parts.overrides("on_validation_epoch_end")
        is_known = metrics and val_loader is not None and not is_added
        check_names(self.scheduler, trainer.monitor, metrics, ("val",) if is_known else ())
        members = self._fresh(self._given)
        return MemberTrainees(
            hooks=trainer,
            live=live_of(trainer),
            parts=parts,
            run=run,
            varied=self._varied,
            maker=MemberStates(
                trainer, self._varied, optimizer, placement_at(self._places[0]), self._loaded
            ),
            scheduler=self.scheduler,
            make_steps=self._steps_of,
            wanted=int(size) if is_whole(size) else None,
            places=self._places[: len(self._given)],
            parallel=self._parallel,
            memory=memory_of(first_of(self._places[0])),
            is_spread=self._is_spread,
            is_checked=size == "auto",
            is_validated=val_loader is not None,
            members=members,
            given=[{"seed": given.seed, **given.values} for given in self._given],
            fresh=members,
        )

    def _fresh(self, given: Iterable[Given], first: int = 0) -> list[Member]:
        """Members before their first step, from a number on."""
        return [
            Member(number=number, seed=one.seed, values=self._varied.complete(one.values, number))
            for number, one in enumerate(given, first)
        ]

    def _steps_of(self, size: int, place: Place) -> Steps:
        steps, placement = self.trainer._made.steps, placement_at(place)
        if size == 1 and place == self._places[0] and placement.is_one:
            return steps
        if (size, place) not in self._steps:
            members = size if size > 1 else None
            self._steps[size, place] = compile_for(
                steps.train_step,
                steps.eval_step,
                self.trainer._made.loss_steps.predict_step,
                loop=self.trainer.loop,
                progress=self.trainer._made.progress,
                where=lambda: "the start",
                members=members,
                size_of=self.trainer._made.size_of,
                example=self.trainer.exmp_input,
                placement=placement,
            )
        return self._steps[size, place]


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
    if trainer.loop.is_fitted:
        raise ConfigurationError(
            'Received a trainer with LoopOptions(microbatches="auto") or remat="auto" for a '
            "population; expected numbers, since the memory depends on how members lie. Write "
            "print(trainer.fitting(batch)) for what a single run needs."
        )
    if trainer.debug:
        raise ConfigurationError(
            "Received a trainer with debug=True; expected a compiled one, since members share a "
            "program. Leave out debug=True, or debug a single run."
        )


def _check_whole(members_per_step: object) -> None:
    if not is_whole(members_per_step, 1):
        raise ConfigurationError(
            f"Received members_per_step={members_per_step!r}; expected 'auto' or a whole number "
            "of at least 1."
        )


def _refuse_parallel(trainer: TrainerModule) -> None:
    """Refuses a trainer that is itself spread over devices."""
    if (parallel := trainer._made.parallel) is not None:
        raise ConfigurationError(
            f"Received a trainer with parallel={parallel!r} for a population; expected one on one "
            "device, since it is the members that are spread over several. Leave it out there, and "
            "write Population(trainer, members, parallel=...)."
        )
