"""What is done and checked before the first epoch."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._arguments import overrides
from boltax._bodies import Evaluation, Training
from boltax._chunks import Chunk
from boltax._ema import evaluated
from boltax._epoch import steps_to_event
from boltax._evaluate import evaluate, planned_batches
from boltax._fused import count_on_device
from boltax._monitor import check_monitor
from boltax._notify import notify
from boltax._record import must_write_at_once
from boltax._resume import resume_run, start_anew
from boltax._run import Run
from boltax._save import save_resume
from boltax._state import evaluations_of
from boltax._steps import Step
from boltax.callbacks._base import overriding
from boltax.data._array_loader import ArrayLoader
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import ConfigurationError, noting
from boltax.optim._plateau import check_metrics

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def prepare(
    trainer: "TrainerModule",
    run: Run,
    val_loader: Any,
    steps_per_epoch: int | None,
    resume: bool | str | os.PathLike[str] | None,
) -> None:
    """Brings trainer, run and folder to where the epochs begin, or go on."""
    folder = Path(trainer.log_dir)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    trainer.progress.note(f"{trainer.name} trains in {shown}")
    trainer.init_optimizer(run.num_epochs or 0, steps_per_epoch)
    trainer.state = trainer.state.replace(
        step=jax.device_put(jnp.asarray(trainer.state.step, jnp.int32))
    )
    if (evaluations := evaluations_of(trainer.state)) is not None:
        check_followed(evaluations.metrics, val_loader)
    if resume is None or resume is False or not resume_run(trainer, run, resume):
        run.is_save_due = start_anew(trainer)
    if not run.is_over:
        compile_ahead(trainer, run, val_loader)
    if not run.step and val_loader is not None and trainer.loop.sanity_check:
        check_one_batch(trainer, run, val_loader)
    with noting(f"{trainer.name}.on_training_start", run.where("train")):
        trainer.on_training_start()
    notify(trainer, run, "on_training_start", "train")
    run.is_active = run.is_saveable = True
    if run.is_save_due:
        save_resume(trainer, run)
    run.signals.poll()


def compile_ahead(trainer: "TrainerModule", run: Run, val_loader: Any) -> None:
    """Begins to compile both steps side by side, where arrays in memory tell their batches."""
    steps, state = trainer.steps, trainer.state
    with run.ledger.spent("compile"):
        if (chunk := _first_of_arrays(run.train_source, steps.train)) is not None:
            carry = Training(state, steps.empty_train(state, chunk, None))
            distance = _first_distance(trainer, run)
            steps.train.precompile(count_on_device(1), carry, chunk.feed, distance)
        if val_loader is None:
            return
        source = run.source(val_loader, "val_loader")
        if (chunk := _first_of_arrays(source, steps.evaluate)) is not None:
            state = evaluated(state)
            metrics = steps.empty_eval(state, chunk, None)
            distance = planned_batches(source, trainer.loop.limit_val_batches) or 1
            constants = Evaluation(state, np.int32(0))
            steps.evaluate.precompile(constants, metrics, chunk.feed, distance)


def _first_distance(trainer: "TrainerModule", run: Run) -> int:
    """Steps that will go off together, as far as it is known: callbacks are not ready to say."""
    if overriding(trainer.callbacks, "on_step_end"):
        return 1
    left, every = run.steps_left(run.train_source.num_batches), trainer.loop.log_every
    until_due = every - run.step % every if must_write_at_once(trainer) else None
    return steps_to_event(run, (), run.step, left, until_due)


def _first_of_arrays(source: Source, step: Step) -> Chunk | None:
    if not isinstance(source, ArrayLoader):  # what others read is not ours to read twice
        return None
    return next(prefetch_to_device(source.epoch(1), is_compiled=step.is_compiled))


def check_one_batch(trainer: "TrainerModule", run: Run, val_loader: Any) -> None:
    """Evaluates one validation batch, so that a mistake in the evaluation shows before an epoch.

    Raises:
        MetricsError: when the trainer's monitor, or what its optimizer follows, is not among the
            metrics.
    """
    if hasattr(val_loader, "__next__"):
        return  # it can be read only once, and that is not ours to spend
    source = run.source(val_loader, "val_loader")
    with noting("the check of one validation batch before the first epoch", "val, epoch 0, step 0"):
        metrics = evaluate(
            trainer.steps,
            evaluated(trainer.state),
            source,
            track=_untracked,
            prefix="val/",
            limit=1,
            longest=planned_batches(source, trainer.loop.limit_val_batches),
        )
    if overrides(trainer, "on_validation_epoch_end") or overriding(
        trainer.callbacks, "on_validation_epoch_end"
    ):
        return  # they may add metrics
    if trainer.monitor and trainer.monitor[0].startswith("val/"):
        check_monitor(trainer.monitor, metrics)
    if (evaluations := evaluations_of(trainer.state)) is not None:
        check_metrics(evaluations, metrics)


def check_followed(metrics: Collection[str], val_loader: Any) -> None:
    """Refuses an optimizer that follows metrics of the validation where there is none."""
    if metrics and val_loader is None:
        raise ConfigurationError(
            f"Received optimizer_hparams that follow {', '.join(sorted(metrics))}, but no "
            "val_loader; expected one to compute it from. Write train_model(train_loader, "
            'val_loader, ...), or leave "monitor" out of the schedule to follow the training loss.'
        )


def check_monitors(trainer: "TrainerModule", val_loader: Any) -> None:
    """Refuses a monitor of the validation where there is none."""
    monitors = [trainer.monitor[0]] if trainer.monitor else []
    monitors += [name for name in (getattr(c, "monitor", "") for c in trainer.callbacks) if name]
    for name in monitors:
        if val_loader is None and str(name).startswith("val/"):
            raise ConfigurationError(
                f"Received monitor {name!r} but no val_loader; expected one to compute it from. "
                "Write train_model(train_loader, val_loader, ...), or monitor a train/ metric."
            )


def _untracked(iterator: Iterable[Any], **_: Any) -> Iterable[Any]:
    return iterator
