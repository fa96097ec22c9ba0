"""From the user's functions to the steps that the loop calls."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from boltax._base._options import LoopOptions
from boltax._base._trees import common_size, examples_or_one, num_examples
from boltax._base._types import Batch
from boltax._progress._progress import Progress
from boltax._step._bodies import (
    EvalStep,
    PredictStep,
    SizeOf,
    TrainStep,
    completed,
    counted_once,
)
from boltax._step._layers import Watched
from boltax._step._loss import LossSteps
from boltax._step._on_gradients import GradientHook
from boltax._step._programs import Compilations
from boltax._step._state import is_traced_hyperparameter
from boltax._step._steps import Steps, compile_steps, host_steps
from boltax.errors import DataError, noting
from boltax.models._adapter import ModelAdapter
from boltax.models._precision import in_precision
from boltax.models._remat import in_layers
from boltax.parallel._placement import ONE_DEVICE, Placement


def loss_steps_of(
    adapter: ModelAdapter,
    loss_function: Callable[..., Any],
    predict_function: Callable[..., Any],
    *,
    owner: str,
    hparams: Mapping[str, Any],
    loop: LoopOptions,
    size_of: SizeOf | None,
    example: Any,
    on_gradients: GradientHook | None = None,
) -> LossSteps:
    """The pure steps of a loss function; hyperparameters that are no traced numbers are in them."""
    return LossSteps(
        in_layers(in_precision(adapter, loop.precision), loop.remat),
        loss_function,
        predict_function,
        owner=owner,
        hparams={k: v for k, v in hparams.items() if not is_traced_hyperparameter(v)},
        microbatches=loop.parts,
        on_gradients=on_gradients,
        watched=watched_by(loop),
        size_of=size_of or num_examples,
        example=example,
    )


def watched_by(loop: LoopOptions) -> Watched | None:
    """What the options have records say of each layer."""
    if not isinstance(loop.log_norms, str):
        return None
    return Watched(loop.log_every, has_histograms=loop.log_norms == "histograms")


def size_of(owner: str, count: Callable[[Batch], Any]) -> SizeOf:
    """The number of examples in a batch, as a trainer's `batch_size_of` counts them.

    Args:
        owner: the name of the trainer's class.
        count: its method.
    """

    def counted(batch: Batch) -> int:
        with noting(f"batch_size_of of {owner}"):
            size: Any = count(batch)
        if isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0:
            return int(size)
        raise DataError(
            f"Received {size} of type {type(size).__name__} from batch_size_of of {owner}; "
            "expected a whole number of at least 1, the same for all batches of a shape. Take it "
            'from a shape, as in: return batch["nodes"].shape[0]. Where it is a value in the '
            "batch, have the loss and the metrics be pairs (total, count) instead."
        )

    return counted


def _counting(steps: Steps, own: SizeOf | None, example: Batch) -> Steps:
    """Steps for which a batch is one example, where the example batch is one, as a graph is."""
    if own is not None or common_size(example) is not None:
        return steps
    return replace(steps, size_of=examples_or_one)


def with_options(train_step: TrainStep, loop: LoopOptions) -> TrainStep:
    """The training step of `create_functions`, with what the options add to it."""
    return completed(
        counted_once(train_step), has_ema=loop.ema is not None, log_norms=bool(loop.log_norms)
    )


def compile_for(
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    *,
    loop: LoopOptions,
    progress: Progress,
    where: Callable[[], str],
    size_of: SizeOf | None,
    example: Batch,
    members: int | None = None,
    placement: Placement = ONE_DEVICE,
) -> Steps:
    """Compiled steps, made of pure ones.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        eval_step: ``(state, batch) -> metrics``.
        predict_step: ``(state, batch) -> outputs``.
        loop: options of the loop.
        progress: shows what is compiled.
        where: says where the run is, for what is compiled again.
        size_of: how the trainer counts the examples of a batch; None for the usual way.
        example: an example batch.
        members: of a population; see `compile_steps`.
        placement: where states and batches lie.
    """
    compilations = Compilations(
        progress.status,
        note=progress.note,
        where=where,
        most_again=loop.max_recompiles,
        batch_shapes=loop.batch_shapes,
    )
    steps = compile_steps(
        train_step,
        eval_step,
        predict_step,
        on_nonfinite=loop.on_nonfinite,
        steps_per_execution=loop.steps_per_execution,
        log_every=loop.log_every,
        compilations=compilations,
        tell=progress.note,
        members=members,
        size_of=size_of,
        placement=placement,
        microbatches=loop.parts,
    )
    return _counting(steps, size_of, example)


def steps_as_set(
    compiled: Steps | None,
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    loop: LoopOptions,
    size_of: SizeOf | None,
    example: Batch,
) -> Steps:
    """The steps that `create_jitted_functions` has left: compiled ones, or those that it has set.

    Args:
        compiled: the steps that were compiled, if any were.
        train_step: the trainer's attribute of this name.
        eval_step: likewise.
        predict_step: ``(state, batch) -> outputs``.
        loop: options of the loop.
        size_of: how the trainer counts the examples of a batch; None for the usual way.
        example: an example batch.
    """
    set_here = (train_step, eval_step)
    if compiled is not None and set_here == (compiled.train_step, compiled.eval_step):
        return compiled
    steps = host_steps(
        train_step, eval_step, predict_step, on_nonfinite=loop.on_nonfinite, size_of=size_of
    )
    return _counting(steps, size_of, example)
