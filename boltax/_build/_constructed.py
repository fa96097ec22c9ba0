"""`Constructed`: the first half of `TrainerModule`, from the constructor to compiled steps.

    arguments, checked -> model -> folder, loggers -> hparams.json -> variables -> summary -> steps

What of it happens depends on the way of construction, see `boltax._build._construction`. The second
half, from the loss to training and loading, is in `boltax.trainer`, with the text that users read.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import jax
from flax import core

from boltax._base._containers import plain_containers, plain_mapping
from boltax._base._monitor import check_form
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax._base._types import Variables
from boltax._build._alike import check_alike
from boltax._build._arguments import (
    check_names,
    check_options,
    example_of,
    logger_params_of,
    parallel_of,
    seed_of,
    whole,
)
from boltax._build._compiled import (
    compile_for,
    loss_steps_of,
    size_of,
    steps_as_set,
    with_options,
)
from boltax._build._construction import take
from boltax._build._first_state import root_key_of, state_without_optimizer, traced_hparams
from boltax._build._loggers import complete_logger, open_loggers
from boltax._build._made import Made
from boltax._build._memory import look_at_first_model
from boltax._build._methods import check_methods, missing_attribute, overrides, refuse_copy
from boltax._build._no_files import params_without_files
from boltax._build._place import ResumeFrom, look_into, make_way, what_lies_in
from boltax._build._signature import ConstructorSignature, noted_call
from boltax._build._stored import config_of, name_of_model, recorded, write_hparams
from boltax._build._summaries import summaries
from boltax._process._compilation_cache import enable_compilation_cache
from boltax._progress._progress import Progress
from boltax._step._bodies import EvalStep, TrainStep
from boltax._step._initialise import call_model, first_keys, initialise
from boltax._step._state import TrainState, variables_of
from boltax.callbacks._base import Callback, as_callbacks
from boltax.checkpoint._constructor_call import lacks_parts
from boltax.checkpoint._files import write_text
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Saver
from boltax.loggers._group import LoggerGroup
from boltax.models._adapter import adapt
from boltax.optim._build import check_hparams
from boltax.parallel._parallel import Parallel, as_parallel, on_mesh


class Constructed:
    """What a trainer is made of; users subclass `boltax.TrainerModule`."""

    rng_streams: ClassVar[Sequence[str]] = ("dropout",)
    __signature__ = ConstructorSignature()

    model_class: Any
    model_hparams: dict[str, Any]
    optimizer_hparams: Any
    exmp_input: Any
    seed: int
    enable_progress_bar: bool
    debug: bool
    check_val_every_n_epoch: int
    callbacks: tuple[Callback, ...]
    monitor: tuple[str, str] | None
    loop: LoopOptions
    checkpoint: CheckpointOptions
    hparams: dict[str, Any]
    config: dict[str, Any]
    model: Any
    logger: LoggerGroup
    log_dir: str
    run: Any
    train_step: TrainStep
    eval_step: EvalStep
    loss_function: Any
    predict_function: Any
    batch_size_of: Any
    on_gradients: Any
    _made: Made

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the constructor's arguments, which `load_from_checkpoint` gives back."""
        trainer = super().__new__(cls)
        trainer._made = Made(take(), noted_call(cls, args, kwargs), cls)
        return trainer

    def __init__(
        self,
        model_class: type[Any],
        model_hparams: Mapping[str, Any] | None = None,
        optimizer_hparams: Any = None,
        exmp_input: Any = None,
        seed: int = 42,
        logger_params: Mapping[str, Any] | bool | None = None,
        enable_progress_bar: bool = True,
        debug: bool = False,
        check_val_every_n_epoch: int = 1,
        *,
        callbacks: Iterable[Callback] = (),
        monitor: tuple[str, str] | None = None,
        loop: LoopOptions | None = None,
        checkpoint: CheckpointOptions | None = None,
        parallel: str | Parallel | None = None,
        **hparams: Any,
    ) -> None:
        made, cls, nothing = self._made, type(self), cast("Any", None)
        made.is_begun = True
        if "cluster" in hparams:  # the guide's earlier name
            enable_progress_bar = not hparams.pop("cluster")
        check_methods(cls)
        leaves_files = logger_params is not False
        logger_params = (
            logger_params_of(logger_params) if leaves_files else params_without_files(made)
        )
        self.model_class = model_class
        self.model_hparams = plain_mapping(
            model_hparams, "model_hparams", 'model_hparams={"features": 64}'
        )
        self.optimizer_hparams = plain_containers(
            {} if optimizer_hparams is None else optimizer_hparams
        )
        self.exmp_input = example_of(exmp_input, cls, hparams.get("data"))
        self.seed = seed_of(seed)
        self.enable_progress_bar, self.debug = enable_progress_bar, debug
        self.check_val_every_n_epoch = whole("check_val_every_n_epoch", check_val_every_n_epoch)
        self.callbacks, self.monitor = as_callbacks(callbacks), monitor
        self.loop = loop or LoopOptions()
        # where nothing stays there is nothing to resume
        self.checkpoint = checkpoint or CheckpointOptions(keep_last=2 if leaves_files else 0)
        self.hparams = plain_containers(hparams)
        check_names(cls, self.hparams, is_new=made.construction.is_new)
        check_options(cls, self.loop, self.checkpoint)
        check_form(monitor)
        parallel = on_mesh(as_parallel(parallel), made.construction.mesh)
        made.parallel = parallel_of(parallel, cls, is_debug=debug)
        # An optimizer is needed only to train; a stored one may ask for files that are elsewhere.
        if made.construction.is_new and not lacks_parts(self.optimizer_hparams):
            check_hparams(self.optimizer_hparams)
        made.call.check_storable(self.hparams)
        made.logger_params = dict(logger_params)
        self.config = config_of(
            model_class=name_of_model(model_class),
            model_hparams=self.model_hparams,
            optimizer_hparams=self.optimizer_hparams,
            hparams=self.hparams,
            logger_params=logger_params,
            enable_progress_bar=enable_progress_bar,
            debug=debug,
            check_val_every_n_epoch=self.check_val_every_n_epoch,
            seed=self.seed,
            **recorded(made.parallel),
        )
        self.run, self.logger, self.log_dir = None, nothing, ""
        self.train_step, self.eval_step, self.model = nothing, nothing, nothing
        made.progress, made.saver = Progress(enable_progress_bar), Saver()
        if not made.construction.is_complete:
            made.construction.described.append(self)
            return
        enable_compilation_cache()
        check_alike(made.placement.group, cls, self.config)
        if not made.placement.group.is_first:
            made.progress = Progress(enabled=False)
        streams = tuple(self.rng_streams)
        made.adapter = adapt(model_class, self.model_hparams, rng_streams=streams)
        self.model, self.config["model_class"] = made.adapter.model, made.adapter.name
        self.__make_loss_steps()
        self.init_logger(logger_params)
        self.log_dir, self.logger = complete_logger(self.logger, self.log_dir, self.config)
        made.logger = self.logger
        # in a folder with a run, only when one of this trainer begins or goes on there
        is_named = made.construction.is_new and bool(logger_params.get("log_dir"))
        made.had_records, is_free = made.placement.group.of_first(
            "a look into the folder", lambda: [*look_into(self.log_dir, is_locked=is_named)]
        )
        is_described_now = made.construction.has_hparams and is_free
        made.is_described = is_described_now or not made.construction.has_hparams
        if is_described_now and made.placement.group.is_first:
            write_hparams(self.log_dir, self.config, made.call, self.exmp_input)
        if made.construction.is_shown:
            for text in made.call.not_stored():
                made.progress.note(text)
        self.init_model(self.exmp_input)
        made.root_key = None if made.uses_loss_steps else root_key_of(self.state)
        self.print_tabulate(self.exmp_input)
        self.__make_steps()

    @property
    def state(self) -> TrainState:
        """The training state of now; None before there is one.

        A step takes the memory of the state before it: keep a copy with `jax.device_get`.
        """
        return self._made.live.state

    @state.setter
    def state(self, state: Any) -> None:
        self._made.live.state = state

    def __make_loss_steps(self) -> None:
        """Makes the pure steps of `loss_function`."""
        if overrides(self, "batch_size_of"):
            self._made.size_of = size_of(self._made.name, self.batch_size_of)
        self._made.loss_steps = loss_steps_of(
            self._made.adapter,
            self.loss_function,
            self.predict_function,
            owner=self._made.name,
            hparams=self.hparams,
            loop=self.loop,
            size_of=self._made.size_of,
            example=self.exmp_input,
            on_gradients=self.on_gradients if overrides(self, "on_gradients") else None,
        )

    def __make_steps(self) -> None:
        """Has the steps compiled, or set by an override, of the methods that there are."""
        nothing: Any = None
        self._made.steps = nothing
        self.create_jitted_functions()
        self._made.steps = steps_as_set(
            self._made.steps,
            self.train_step,
            self.eval_step,
            self._made.loss_steps.predict_step,
            self.loop,
            self._made.size_of,
            self.exmp_input,
        )

    def _remake_steps(self) -> None:
        """Makes all steps anew, for a trainer that took its attributes from another one."""
        self.__make_loss_steps()
        self.__make_steps()

    def _begin_place(self, lock: RunLock, resume: ResumeFrom) -> None:
        """Has a run that begins find no other in its folder, and write its own ``hparams.json``.

        Args:
            lock: of the folder; afterwards that of the run's.
            resume: as for `train_model`.
        """
        made, run = self._made, self.run
        has_trained = made.had_records or (run is not None and run.step > 0)
        processes, folder = made.placement.group, self.log_dir
        found = processes.of_first(
            "a look into the folder", lambda: what_lies_in(folder, resume, is_used=has_trained)
        )
        if found != "a run before":
            if found == "nothing":
                self._describe()
            return
        versions_in, is_ours = made.versions_in, self.logger is made.logger
        if is_ours:
            self.logger.finalize()  # what was opened since
        self.log_dir = processes.of_first(
            "a place for the run", lambda: make_way(made.name, folder, lock, versions_in)
        )
        if versions_in is not None and made.logger_params.pop("log_dir", None):
            made.call = made.call.without_folder()
            self.config["logger_params"] = made.logger_params
        if is_ours and made.has_own_loggers:
            self.init_logger({**made.logger_params, "log_dir": self.log_dir})
            self.log_dir, self.logger = complete_logger(self.logger, self.log_dir, self.config)
            made.logger = self.logger
        else:
            self.logger.resume(0)
        made.versions_in = versions_in
        made.had_records = made.is_described = False
        self._describe()

    def _describe(self) -> None:
        """Writes ``hparams.json`` and ``model.txt`` where those of an older start may lie."""
        made = self._made
        if not made.is_described:
            made.is_described = True
            if not made.placement.group.is_first:
                return
            write_hparams(self.log_dir, self.config, made.call, self.exmp_input)
            write_text(RunDirectory(self.log_dir).model_txt, made.summary)

    if not TYPE_CHECKING:  # an editor knows the attributes that there are

        def __getattr__(self, name: str) -> Any:
            made = self.__dict__.get("_made")
            raise missing_attribute(self, name, is_begun=made is not None and made.is_begun)

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise refuse_copy(self)

    def init_logger(self, logger_params: dict[str, Any]) -> None:
        """Makes the run's folder and its loggers: sets `self.logger` and `self.log_dir`.

        Args:
            logger_params: as given to the constructor.

        Raises:
            RunDirectoryError: when the folder cannot be made.
            UnknownNameError: for a logger that does not exist.
        """
        self.log_dir, self.logger = open_loggers(
            logger_params, self.config, self._made.construction
        )
        is_chosen = not logger_params.get("log_dir")
        self._made.versions_in = os.path.dirname(self.log_dir) if is_chosen else None
        self._made.has_own_loggers = True

    def init_model(self, exmp_input: Any) -> None:
        """Initialises the model's variables and sets `self.state`, without an optimizer yet.

        Args:
            exmp_input: the example batch (with `create_functions`: the model's inputs).
        """
        if not overrides(self, "loss_function") and not isinstance(exmp_input, list | tuple):
            exmp_input = [exmp_input]
        look_at_first_model(
            self._made.adapter,
            self.__initial_run(),
            exmp_input,
            self.hparams,
            self._made.progress.note,
        )
        root, init_rng = first_keys(self.seed)
        variables = core.unfreeze(self.run_model_init(exmp_input, init_rng))
        placement, named = self._made.placement, self._made.adapter.axis_names
        variables = placement.settled(variables, named)
        self.state = state_without_optimizer(
            self._made.adapter, self.hparams, variables, root, placement
        )

    def run_model_init(self, exmp_input: Any, init_rng: jax.Array) -> Variables:
        """Makes the model's variables for the example input, compiled.

        With `loss_function`, by running it once in initialisation mode, so any structure of batch
        works; otherwise by calling the model with ``*exmp_input`` and ``train=True``.

        Args:
            exmp_input: an example batch, or a sequence of inputs.
            init_rng: random key.

        Returns:
            Variables by collection, ``{"params": ..., ...}``.

        Raises:
            ModelError: when the input does not fit the model.
            LossError: when `loss_function` raises for another reason.
        """
        has_values = self._made.construction.has_values
        shown = (
            self._made.progress.status("initialising the model") if has_values else nullcontext()
        )
        with shown:
            variables, self._made.calls = initialise(
                self._made.adapter,
                self.__initial_run(),
                exmp_input,
                init_rng,
                hparams=self.hparams,
                traced_hparams=traced_hparams(self.hparams),
                owner=self._made.name,
                is_abstract=not has_values,
                placement=self._made.placement,
            )
        return variables

    def __initial_run(self) -> Any:
        """What runs the model on the example: the loss, or a plain call."""
        return self._made.loss_steps.run if overrides(self, "loss_function") else call_model

    def print_tabulate(self, exmp_input: Any) -> None:
        """Prints a summary of the model, and writes the whole of it to ``model.txt``.

        Args:
            exmp_input: as given to the constructor.
        """
        variables, made = variables_of(self.state), self._made
        is_shown = made.construction.is_shown and made.progress.enabled
        whole, shown = summaries(
            made.adapter, made.calls, variables, made.placement, is_shown=is_shown
        )
        self._made.summary = whole
        if self._made.construction.is_shown:
            if self._made.is_described and self._made.placement.group.is_first:
                RunDirectory(self.log_dir).model_txt.write_text(whole)
            self._made.progress.note(shown)

    def create_functions(self) -> tuple[TrainStep, EvalStep]:
        """The pure steps; by default made from `loss_function`.

        Returns:
            ``train_step(state, batch) -> (state, metrics)`` and ``eval_step(state, batch) ->
            metrics``. Metrics are scalars (means over the batch), arrays ``[batch, ...]``, of which
            the mean over all entries counts, pairs ``(total, count)``, or objects with ``merge``
            and ``compute``.
        """
        return self._made.loss_steps.train_step, self._made.loss_steps.eval_step

    def create_jitted_functions(self) -> None:
        """Compiles the steps and sets `self.train_step` and `self.eval_step`.

        With ``debug=True`` they stay Python. An override that sets both has them called as they
        are, once for each batch.
        """
        train_step, eval_step = self.create_functions()
        train_step = with_options(train_step, self.loop)
        if self.debug:
            self.train_step, self.eval_step = train_step, eval_step
            return
        self._made.steps = compile_for(
            train_step,
            eval_step,
            self._made.loss_steps.predict_step,
            loop=self.loop,
            progress=self._made.progress,
            where=lambda: self.run.where("train") if self.run else "the start",
            size_of=self._made.size_of,
            example=self.exmp_input,
            placement=self._made.placement,
        )
        self.train_step, self.eval_step = self._made.steps.train_step, self._made.steps.eval_step
