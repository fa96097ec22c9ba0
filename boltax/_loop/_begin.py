"""What is done and checked before the first epoch."""

import os
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from boltax._base._chunks import Chunk
from boltax._loop._epoch import steps_to_event
from boltax._loop._evaluate import compile_ahead, planned_batches
from boltax._loop._notify import notify
from boltax._loop._record import must_write_at_once
from boltax._loop._resume import resume_run, start_anew
from boltax._loop._run import Run
from boltax._loop._sanity_check import SanityCheck
from boltax._loop._saving import save_resume
from boltax._step._bodies import Training
from boltax._step._ema import evaluated
from boltax._step._fused import count_on_device
from boltax._step._state import evaluations_of
from boltax._step._steps import Step
from boltax.callbacks._base import overriding
from boltax.data._array_loader import ArrayLoader
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import ConfigurationError, noting

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
    trainer._made.progress.note(f"{trainer._made.name} trains in {shown}")
    trainer.init_optimizer(run.num_epochs or 0, steps_per_epoch)
    trainer.state = trainer.state.replace(
        step=jax.device_put(jnp.asarray(trainer.state.step, jnp.int32))
    )
    if (evaluations := evaluations_of(trainer.state)) is not None:
        check_followed(evaluations.metrics, val_loader)
    if resume is None or resume is False or not resume_run(trainer, run, resume):
        run.is_save_due = start_anew(trainer)
    compiled = None if run.is_over else compile_steps_ahead(trainer, run, val_loader)
    if not run.step and trainer.loop.sanity_check and _is_repeatable(val_loader):
        run.sanity_check = SanityCheck(trainer, run, val_loader, compiled)
    with noting(f"{trainer._made.name}.on_training_start", run.where("train")):
        trainer.on_training_start()
    notify(trainer, run, "on_training_start", "train")
    run.is_active = run.is_saveable = True
    if run.is_save_due:
        save_resume(trainer, run)
    run.signals.poll()


def _is_repeatable(loader: Any) -> bool:
    """Whether there is a loader that gives what was read of it once more."""
    return loader is not None and not hasattr(loader, "__next__")


def compile_steps_ahead(trainer: "TrainerModule", run: Run, val_loader: Any) -> Future[Any] | None:
    """Begins to compile both steps, where arrays in memory tell their batches: training first.

    Returns:
        What is done when the evaluation step is compiled; None where that has not begun.
    """
    steps, state, trained = trainer._made.steps, trainer.state, None
    with run.ledger.spent("compile"):
        if (chunk := _first_of_arrays(run.train_source, steps.train)) is not None:
            carry = Training(state, steps.empty_train(state, chunk, None))
            distance = _first_distance(trainer, run)
            trained = steps.train.precompile(count_on_device(1), carry, chunk.feed, distance)
        if val_loader is None:
            return None
        source = run.source(val_loader, "val_loader")
        if (chunk := _first_of_arrays(source, steps.evaluate)) is None:
            return None
        total = planned_batches(source, trainer.loop.limit_val_batches)
        return compile_ahead(steps, evaluated(state), chunk, total, trained)


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
