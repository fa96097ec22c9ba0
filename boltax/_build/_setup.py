"""What a trainer's construction and the start of its training do, beside its own methods."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from boltax._build._arguments import LOADING, overrides
from boltax._build._hooks import Live
from boltax._process._allocator import late_hint
from boltax._step._bodies import EvalStep, SizeOf, TrainStep, completed, counted_once
from boltax._process._compilation_cache import enable_compilation_cache
from boltax._progress._progress import Progress
from boltax._step._ema import first_ema
from boltax._step._initialise import call_model, forward_bytes
from boltax._step._loss import LossSteps
from boltax._step._loss_scale import first_loss_scale
from boltax._step._programs import Compilations
from boltax._step._state import (
    TrainState,
    is_traced_hyperparameter,
    split_collections,
    variables_of,
)
from boltax._step._steps import Steps, compile_create, compile_steps, host_steps
from boltax._base._trees import common_size, examples_or_one, num_examples
from boltax._base._types import Batch, Variables
from boltax.checkpoint._constructor_call import ConstructorCall, lacks_parts, read_call
from boltax.checkpoint._files import write_json
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._plain import plain
from boltax.checkpoint._rundir import RunDirectory, create_run_directory, open_run_directory
from boltax.data._batches import to_host
from boltax.errors import BoltaxError, ConfigurationError, DataError, OptimizerError, noting
from boltax.loggers._create import as_logger_group, create_loggers
from boltax.loggers._group import LoggerGroup
from boltax.models._calls import Call
from boltax.models._precision import in_precision
from boltax.models._summary import narrowed, summarize, summarize_variables
from boltax.optim._build import Optimizer, build
from boltax.optim._plateau import first_evaluations

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

_SUMMARY_LINES = 60  # a longer summary is shown by its upper level
_has_looked = threading.Event()
_DESCRIBING: ContextVar[bool] = ContextVar("describing", default=False)
_PREVIEW: ContextVar[str | None] = ContextVar("preview", default=None)
"""The folder of trainers that are only looked at, in place of a run's; None for all others."""


class _Described(BaseException):
    """Ends the construction of a trainer that was only to be described."""

    def __init__(self, trainer: "TrainerModule") -> None:
        super().__init__()
        self.trainer = trainer


def describe_trainer(make: Callable[[], Any]) -> "TrainerModule | None":
    """The trainer that a function makes, with its arguments, checked, and nothing else.

    Its construction ends there: no model, no folder, no state. None when the function makes none.
    """
    token = _DESCRIBING.set(True)
    try:
        make()
    except _Described as described:
        return described.trainer
    finally:
        _DESCRIBING.reset(token)
    return None


@contextmanager
def previewing() -> Generator[None]:
    """Within it trainers are made of shapes, to be looked at: no run's folder and no loggers."""
    with tempfile.TemporaryDirectory(prefix="boltax-", ignore_cleanup_errors=True) as folder:
        loading, preview = LOADING.set(True), _PREVIEW.set(folder)
        try:
            yield
        finally:
            _PREVIEW.reset(preview)
            LOADING.reset(loading)


def prepare_process(trainer: "TrainerModule") -> None:
    """What makes this process fast, and is done once: before anything is compiled.

    Of a trainer that is only described (see `describe_trainer`) the construction ends here.
    """
    if _DESCRIBING.get() and not LOADING.get():
        raise _Described(trainer)
    enable_compilation_cache()


def prepare_memory(trainer: "TrainerModule", example: Any) -> None:
    """Has the memory of a step kept for the next one where the model's values are large.

    The first trainer of a process decides, before it starts JAX's backend: its model is traced.
    """
    if _has_looked.is_set():
        return
    _has_looked.set()
    run = trainer.loss_steps.run if overrides(trainer, "loss_function") else call_model

    def count_values() -> int:
        with suppress(Exception):  # the initialisation says what is wrong
            return forward_bytes(trainer.adapter, run, example, trainer.hparams)
        return 0

    if (hint := late_hint(count_values)) is not None:
        trainer.progress.note(hint)


def twin_of(trainer: "TrainerModule", **attributes: Any) -> Any:
    """A trainer of the same class and attributes but for some, silent and without a run.

    What it assigns to itself, such as its state in `init_optimizer`, the trainer does not have.
    """
    twin = object.__new__(type(trainer))
    live = Live(attributes.pop("state", trainer.state))
    own = {"progress": Progress(enabled=False), "run": None, "_live": live}
    twin.__dict__.update({**trainer.__dict__, **own, **attributes})
    return twin


def rebuild(
    trainer_class: type[Any], folder: Path, exmp_input: Any, arguments: Mapping[str, Any]
) -> Any:
    """A trainer with the hyperparameters of a stored run, whose state has shapes and no values."""
    call = read_call(folder, trainer_class)
    positional, keywords = call.arguments(exmp_input=exmp_input, given=arguments)
    token = LOADING.set("logger_params" not in arguments)
    try:
        return trainer_class(*positional, **keywords)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, BoltaxError) or not (fault := call.fault(positional, keywords)):
            raise
        raise call.failed(fault) from error
    finally:
        LOADING.reset(token)


def variant(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> Any:
    """A trainer like another one, with other constructor arguments and a folder of its own.

    Its state has shapes and no values. It has no loggers and shows no progress.

    Raises:
        ConfigurationError: when the subclass's own constructor does not take the arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = LOADING.set(True)
    try:
        made = _changed(trainer, folder, changes)
    finally:
        LOADING.reset(token)
    write_hparams(made, made.call)
    return made


def write_variant(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> None:
    """Writes the ``hparams.json`` of `variant`, without making that trainer, which takes longer."""
    write_described(describe_trainer(lambda: _changed(trainer, folder, changes)), trainer, folder)


def write_described(described: Any, trainer: "TrainerModule", folder: Path) -> None:
    """Writes the ``hparams.json`` of a trainer that `describe_trainer` gave.

    Args:
        described: that trainer; it has the model class of `trainer`.
        trainer: one that was made.
        folder: of the run.
    """
    described.adapter, described.log_dir = trainer.adapter, str(folder)
    described.config = config_of(described, _quiet(folder)["logger_params"])
    write_hparams(described, described.call)


def _quiet(folder: Path) -> dict[str, Any]:
    logger_params = {"log_dir": str(folder), "logger_type": "none"}
    return {"logger_params": logger_params, "enable_progress_bar": False}


def _changed(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> Any:
    own = {**trainer.call.named, "exmp_input": trainer.exmp_input}
    try:
        return type(trainer)(*trainer.call.positional, **{**own, **changes, **_quiet(folder)})
    except TypeError as error:
        raise ConfigurationError(
            f"Received {trainer.name}, whose constructor does not take {', '.join(changes)} and "
            f"logger_params ({error}); expected one that hands them on, so that members can be "
            "trainers of their own. Write def __init__(self, ..., **kwargs): "
            "super().__init__(..., **kwargs)."
        ) from error


def config_of(trainer: "TrainerModule", logger_params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The configuration of a run, with the names of the guide."""
    optimizer = trainer.optimizer_hparams
    if isinstance(optimizer, optax.GradientTransformation):
        optimizer = "an optax transformation"
    return {
        "model_class": trainer.adapter.name,
        "model_hparams": trainer.model_hparams,
        "optimizer_hparams": optimizer,
        "logger_params": dict(logger_params or {}),
        "enable_progress_bar": trainer.enable_progress_bar,
        "debug": trainer.debug,
        "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "seed": trainer.seed,
        **trainer.hparams,
    }


def open_loggers(
    trainer: "TrainerModule", logger_params: Mapping[str, Any], *, is_new_run: bool
) -> tuple[str, LoggerGroup]:
    """Makes or opens the run's folder, and the loggers that write to it."""
    if (preview := _PREVIEW.get()) is not None:
        return preview, create_loggers("none", log_dir=preview, config={})
    if logger_params.get("log_dir"):
        directory = open_run_directory(logger_params["log_dir"], writable=is_new_run)
        if is_new_run:
            with RunLock(directory.path):  # who trains there keeps its files
                pass
    else:
        directory = create_run_directory(
            logger_params.get("base_log_dir") or "runs",
            trainer.adapter.name,
            logger_params.get("logger_name"),
        )
    loggers = create_loggers(
        logger_params.get("logger_type") or "TensorBoard",
        log_dir=str(directory.path),
        config=plain(trainer.config),
        project_name=logger_params.get("project_name"),
        run_name=logger_params.get("logger_name"),
    )
    return str(directory.path), loggers


def complete_logger(trainer: "TrainerModule") -> None:
    """Makes a logger of the user's one that cannot end the run, and names the run to it."""
    if not isinstance(trainer.logger, LoggerGroup):
        trainer.logger = as_logger_group(trainer.logger)
        trainer.logger.log_hyperparams(plain(trainer.config))
    trainer.log_dir = str(trainer.log_dir or trainer.logger.log_dir)


def write_hparams(trainer: "TrainerModule", call: ConstructorCall) -> None:
    """Writes ``hparams.json``: the configuration, and the arguments to be given back."""
    hparams = {**plain(trainer.config), **call.to_json(trainer.exmp_input)}
    write_json(RunDirectory(trainer.log_dir).hparams, hparams)


def traced_hparams(trainer: "TrainerModule") -> dict[str, jax.Array]:
    """The hyperparameters that live in the state, as arrays."""
    numbers = {k: v for k, v in trainer.hparams.items() if is_traced_hyperparameter(v)}
    return {name: _on_device(value, np.float32) for name, value in numbers.items()}


def _on_device(value: Any, dtype: Any) -> jax.Array:
    """A number on the device: functions of `jax.numpy` would compile a program for it."""
    return jax.device_put(np.asarray(jax.device_get(value), dtype))


def loss_steps_of(trainer: "TrainerModule") -> LossSteps:
    """The pure steps of `loss_function`; hyperparameters that are no traced numbers are in them."""
    static = {k: v for k, v in trainer.hparams.items() if not is_traced_hyperparameter(v)}
    return LossSteps(
        in_precision(trainer.adapter, trainer.loop.precision),
        trainer.loss_function,
        trainer.predict_function,
        owner=trainer.name,
        hparams=static,
        microbatches=trainer.loop.microbatches,
        size_of=size_of(trainer) or num_examples,
        example=trainer.exmp_input,
    )


def size_of(trainer: "TrainerModule") -> SizeOf | None:
    """How a trainer counts the examples of a batch; None for the usual way."""
    if not overrides(trainer, "batch_size_of"):
        return None

    def counted(batch: Batch) -> int:
        with noting(f"batch_size_of of {trainer.name}"):
            size: Any = trainer.batch_size_of(batch)
        if isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0:
            return int(size)
        raise DataError(
            f"Received {size} of type {type(size).__name__} from batch_size_of of {trainer.name}; "
            "expected a whole number of at least 1, the same for all batches of a shape. Take it "
            'from a shape, as in: return batch["nodes"].shape[0]. Where it is a value in the '
            "batch, have the loss and the metrics be pairs (total, count) instead."
        )

    return counted


def summaries(trainer: "TrainerModule", calls: list[Call] | None) -> tuple[str, str]:
    """The whole table of a model's layers, and one that fits the terminal."""
    width = shutil.get_terminal_size((120, 40)).columns
    if calls is None:  # the model was initialised by an override
        variables = variables_of(trainer.state)
        return summarize_variables(variables), summarize_variables(variables, width=width)
    whole = summarize(trainer.adapter, calls)
    shown = narrowed(whole, width)  # without tracing the model again
    is_long = len(shown.splitlines()) > _SUMMARY_LINES
    if is_long or max(map(len, shown.splitlines()), default=0) > width:
        shown = summarize(trainer.adapter, calls, depth=1 if is_long else None, width=width)
    return whole, shown


def state_without_optimizer(
    trainer: "TrainerModule", variables: Variables, rng: jax.Array
) -> TrainState:
    """The state before `init_optimizer`, as in the guide."""
    nothing: Any = None
    return TrainState(
        step=_on_device(0, np.int32),
        apply_fn=trainer.adapter.apply_fn,
        params=variables["params"],
        tx=nothing,
        opt_state=nothing,
        rng=rng,
        hparams=traced_hparams(trainer) or None,
        **split_collections(variables),
    )


def root_key_of(state: Any) -> Any:
    """The root random key of a run in memory of its own; None for a state that has none.

    A user's own steps may put another one into the state, and evaluation draws from the first.
    """
    rng = getattr(state, "rng", None)
    return None if rng is None else jnp.array(rng, copy=True)


def build_optimizer(trainer: "TrainerModule", total_steps: int | None) -> Optimizer:
    """The optimizer of `optimizer_hparams`.

    Raises:
        OptimizerError: when it cannot be built, or asks for what the trainer's own steps lack.
    """
    if lacks_parts(trainer.optimizer_hparams):
        raise OptimizerError(
            f"Received optimizer_hparams={trainer.optimizer_hparams!r} from a stored run, which "
            "could not hold all of it; expected an optimizer to train with. Write "
            "load_from_checkpoint(folder, optimizer_hparams=...)."
        )
    optimizer = build(trainer.optimizer_hparams, total_steps)
    if optimizer.l2_regularization and overrides(trainer, "create_functions"):
        raise OptimizerError(
            f"Received l2_regularization={optimizer.l2_regularization} for {trainer.name}, whose "
            "create_functions computes the loss itself; expected it there. Leave it out of "
            "optimizer_hparams and add boltax.optim.l2_penalty(params, coefficient) to the loss."
        )
    return optimizer


def state_with_optimizer(trainer: "TrainerModule", optimizer: Optimizer, state: Any) -> Any:
    """A fresh state at step 0, made in one compiled call; the state that it is made of is donated.

    Args:
        trainer: whose options count.
        optimizer: what trains it.
        state: the state before, for its variables.
    """
    hparams = traced_hparams(trainer)
    if optimizer.l2_regularization:
        hparams["l2_regularization"] = _on_device(optimizer.l2_regularization, np.float32)

    def create(state: Any) -> Any:
        return state.replace(
            step=jnp.zeros((), jnp.int32),
            tx=optimizer.tx,
            opt_state=optimizer.tx.init(state.params),
            hparams=hparams or None,
            evaluations=first_evaluations(optimizer.metrics),
            **fields_of_options(trainer, state),
        )

    return compile_create(create)(state)


def fields_of_options(trainer: "TrainerModule", state: Any) -> dict[str, Any]:
    """What options add to a fresh state: an average of its parameters, a scale of the loss."""
    loop = trainer.loop
    return {
        "ema": None if loop.ema is None else first_ema(state, loop.ema),
        "loss_scale": first_loss_scale() if loop.precision == "fp16" else None,
    }


def pure_steps(trainer: "TrainerModule") -> tuple[TrainStep, EvalStep]:
    """The steps of `create_functions`, with what the options add to a training step."""
    train_step, eval_step = trainer.create_functions()
    loop = trainer.loop
    train_step = completed(
        counted_once(train_step), has_ema=loop.ema is not None, log_norms=loop.log_norms
    )
    return train_step, eval_step


def compile_for(
    trainer: "TrainerModule",
    train_step: TrainStep,
    eval_step: EvalStep,
    members: int | None = None,
) -> Steps:
    """Compiled steps, made of pure ones, with a trainer's options; `members` as `compile_steps`."""
    compilations = Compilations(
        trainer.progress.status,
        note=trainer.progress.note,
        where=lambda: trainer.run.where("train") if trainer.run else "the start",
        most_again=trainer.loop.max_recompiles,
        batch_shapes=trainer.loop.batch_shapes,
    )
    steps = compile_steps(
        train_step,
        eval_step,
        trainer.loss_steps.predict_step,
        on_nonfinite=trainer.loop.on_nonfinite,
        steps_per_execution=trainer.loop.steps_per_execution,
        log_every=trainer.loop.log_every,
        compilations=compilations,
        tell=trainer.progress.note,
        members=members,
        size_of=size_of(trainer),
    )
    return _counting(trainer, steps)


def compiled_steps(trainer: "TrainerModule") -> Steps:
    """The steps of a trainer: compiled, or as `create_jitted_functions` or debugging has them."""
    trainer.create_jitted_functions()
    steps = getattr(trainer, "steps", None)
    if steps is not None and (trainer.train_step, trainer.eval_step) == (
        steps.train_step,
        steps.eval_step,
    ):
        return steps
    steps = host_steps(
        trainer.train_step,
        trainer.eval_step,
        trainer.loss_steps.predict_step,
        on_nonfinite=trainer.loop.on_nonfinite,
        size_of=size_of(trainer),
    )
    return _counting(trainer, steps)


def _counting(trainer: "TrainerModule", steps: Steps) -> Steps:
    """Steps for whose trainer a batch is one example, where the example batch is like that."""
    if size_of(trainer) or common_size(to_host(trainer.exmp_input)[0]) is not None:
        return steps
    return replace(steps, size_of=examples_or_one)
