"""From the user's functions to the steps that the loop calls."""

from collections.abc import Callable, Mapping
from typing import Any

from boltax._base._options import LoopOptions
from boltax._progress._progress import Progress
from boltax._step._bodies import EvalStep, PredictStep, TrainStep, completed, counted_once
from boltax._step._loss import LossSteps
from boltax._step._programs import Compilations
from boltax._step._state import is_traced_hyperparameter
from boltax._step._steps import Steps, compile_steps, host_steps
from boltax.models._adapter import ModelAdapter
from boltax.models._precision import in_precision


def loss_steps_of(
    adapter: ModelAdapter,
    loss_function: Callable[..., Any],
    predict_function: Callable[..., Any],
    *,
    owner: str,
    hparams: Mapping[str, Any],
    loop: LoopOptions,
) -> LossSteps:
    """The pure steps of a loss function; hyperparameters that are no traced numbers are in them."""
    return LossSteps(
        in_precision(adapter, loop.precision),
        loss_function,
        predict_function,
        owner=owner,
        hparams={k: v for k, v in hparams.items() if not is_traced_hyperparameter(v)},
        microbatches=loop.microbatches,
    )


def with_options(train_step: TrainStep, loop: LoopOptions) -> TrainStep:
    """The training step of `create_functions`, with what the options add to it."""
    return completed(
        counted_once(train_step), has_ema=loop.ema is not None, log_norms=loop.log_norms
    )


def compile_for(
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    *,
    loop: LoopOptions,
    progress: Progress,
    where: Callable[[], str],
    members: int | None = None,
) -> Steps:
    """Compiled steps, made of pure ones.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        eval_step: ``(state, batch) -> metrics``.
        predict_step: ``(state, batch) -> outputs``.
        loop: options of the loop.
        progress: shows what is compiled.
        where: says where the run is, for what is compiled again.
        members: of a population; see `compile_steps`.
    """
    compilations = Compilations(
        progress.status, note=progress.note, where=where, most_again=loop.max_recompiles
    )
    return compile_steps(
        train_step,
        eval_step,
        predict_step,
        on_nonfinite=loop.on_nonfinite,
        steps_per_execution=loop.steps_per_execution,
        log_every=loop.log_every,
        compilations=compilations,
        tell=progress.note,
        members=members,
    )


def steps_as_set(
    compiled: Steps | None,
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    loop: LoopOptions,
) -> Steps:
    """The steps that `create_jitted_functions` has left: compiled ones, or those that it has set.

    Args:
        compiled: the steps that were compiled, if any were.
        train_step: the trainer's attribute of this name.
        eval_step: likewise.
        predict_step: ``(state, batch) -> outputs``.
        loop: options of the loop.
    """
    set_here = (train_step, eval_step)
    if compiled is not None and set_here == (compiled.train_step, compiled.eval_step):
        return compiled
    return host_steps(train_step, eval_step, predict_step, on_nonfinite=loop.on_nonfinite)
