"""Saves a run so that it can go on: what a resume checkpoint holds, and when one is written.

    state on the device  --copy on the device-->  background thread  -->  files

The loop pays for the copy; everything else happens while it goes on. Best models and snapshots take
the same way, in one line, so that no resume checkpoint is on disk before the best model that it
speaks of.
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from boltax._base._options import CheckpointOptions
from boltax._base._trees import is_deleted
from boltax._base._triggers import Every
from boltax._base._types import PyTree, ScalarMetrics
from boltax._loop._run import Run, Stage
from boltax._step._ema import evaluated
from boltax._step._state import variables_of
from boltax.callbacks._states import callback_states
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.checkpoint._plain import plain
from boltax.checkpoint._resume import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Job
from boltax.data._cursor import cursor_to_json
from boltax.errors import TrainingError, noting
from boltax.metrics._accumulate import Metrics, SavedMetrics, compute, merge, rebuilt

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

OPTIONAL = ("ema", "evaluations", "loss_scale")
"""Fields of the state that only an option of the loop adds."""
RETRY_SECONDS = 30.0
"""After a save that failed, the next one is tried so much later, or when it is due anyway."""
_log = logging.getLogger("boltax")


def save_trigger(options: CheckpointOptions) -> Every:
    """When a resume checkpoint is due."""
    return Every(
        steps=options.every_steps, minutes=options.every_minutes, epochs=options.every_epochs
    )


def is_save_due(trainer: "TrainerModule", run: Run, *, ended_epoch: int | None = None) -> bool:
    """Whether to save a resume checkpoint now: it is time, and the last one is written.

    Tells what failed since this was last asked.

    Args:
        trainer: who saves.
        run: its run.
        ended_epoch: the epoch that ends at this moment, if one does.
    """
    tell_failures(trainer, run)
    now = time.monotonic()
    run.is_save_due |= now >= run.retry_at or run.save_trigger.is_due(
        step=run.step, seconds=now - run.saved_at, ended_epoch=ended_epoch
    )
    return run.is_save_due and not trainer._made.saver.is_busy


def save_resume(trainer: "TrainerModule", run: Run) -> None:
    """Has a resume checkpoint of this moment written in the background.

    Raises:
        TrainingError: when the state is lost, because the step that had its memory failed.
    """
    point = (run.epoch, run.stage, run.step)
    if not trainer.checkpoint.keep_last or run.saved_point == point:
        return
    if run.is_cut and run.stage is not Stage.TRAIN:
        return  # what goes on is the epoch, from the step at which it was cut
    with run.ledger.spent("checkpoints"):
        _save_resume(trainer, run, point)


def _save_resume(trainer: "TrainerModule", run: Run, point: tuple[int, Stage, int]) -> None:
    state = state_tree(trainer.state)
    if is_deleted(state):
        raise TrainingError(
            "Received a state whose memory belongs to a step that failed; expected a live one. "
            "The last resume checkpoint is the place to go on from: resume=True."
        )
    run.saved_point, run.saved_at, run.is_save_due, run.retry_at = (
        point,
        time.monotonic(),
        False,
        float("inf"),
    )
    trainer.logger.flush()  # what was recorded so far will not be recorded again
    state = trainer._made.copies.take(state)
    interval, epoch = (trainer._made.copies.of_metrics(m) for m in (run.interval, run.accumulated))
    progress = _progress(trainer, run)
    source, cursor, record, history = run.train_source, run.cursor, run.record, tuple(run.history)
    directory, step = RunDirectory(trainer.log_dir), run.step
    best = BestCheckpoints(directory.best, keep=trainer.checkpoint.keep_best)
    checkpoints = ResumeCheckpoints(directory.resume, keep=trainer.checkpoint.keep_last)

    def write() -> None:
        data = {
            "cursor": None if cursor is None else cursor_to_json(cursor),
            "fingerprint": source.fingerprint(),
            "processes": jax.process_count(),
        }
        best_steps = run.best_steps[-best.keep :]  # older trainings may have left others there
        rest = {
            "data": data,
            "history": [plain_metrics(row) for row in history],
            "record": plain_metrics(_means(interval, epoch) or record),
            "best_steps": best_steps,
        }
        arrays = {"state": state, "interval": _leaves(interval), "epoch": _leaves(epoch)}
        checkpoints.save(step, arrays, {**progress, **rest})
        if best_steps:  # those that only an older resume checkpoint needed
            best.discard_except({*best_steps, *checkpoints.best_steps()})
        trainer._made.copies.give_back(state)

    trainer._made.saver.submit(Job(f"the resume checkpoint of step {step}", "resume", write))


def save_variables(trainer: "TrainerModule", run: Run | None, step: int, *, is_best: bool) -> None:
    """Saves the model's variables: as the best so far, or to stay.

    In the background while a run trains; otherwise this returns when they are on the disk.

    Args:
        trainer: whose variables.
        run: its run; None before the first.
        step: names the checkpoint.
        is_best: whether they go to ``checkpoints/best`` or to ``checkpoints/saved``.

    Raises:
        RunDirectoryError: when they cannot be written, and no run is training.
    """
    directory, keep = RunDirectory(trainer.log_dir), trainer.checkpoint.keep_best
    if is_best:
        folder, metrics = BestCheckpoints(directory.best, keep=keep), dict((run and run.best) or {})
        what = f"the best model of step {step}"
    else:
        folder, metrics = BestCheckpoints(directory.saved, keep=sys.maxsize), {}
        what = f"the model of step {step}"
    variables = variables_of(evaluated(trainer.state))
    resume = ResumeCheckpoints(directory.resume)

    def write() -> None:
        protected = resume.best_steps() if is_best else ()
        folder.save(step, variables, metrics, protected=protected)
        if is_best and run is not None:
            run.best_steps = [*(s for s in run.best_steps if s != step), step]

    if run is None or not run.is_active:
        trainer._made.saver.wait()
        write()
        return
    with run.ledger.spent("checkpoints"):  # it waits while two are to be written
        variables = trainer._made.copies.copy(variables)
        trainer._made.saver.submit(Job(what, "best" if is_best else f"saved {step}", write))


def save_small(
    trainer: "TrainerModule", what: str, write: Callable[..., None], *arguments: Any
) -> None:
    """Writes something without arrays: in the background while a run trains, else at once.

    Args:
        trainer: whose folder it is written to.
        what: names it to people.
        write: writes it.
        *arguments: those of `write`.
    """
    if trainer.run is not None and trainer.run.is_active:
        trainer._made.saver.submit(Job(what, what, partial(write, *arguments), has_arrays=False))
    else:
        write(*arguments)


def tell_failures(trainer: "TrainerModule", run: Run) -> None:
    """Warns of what could not be written since the last time, and plans another try."""
    for failure in trainer._made.saver.failures():
        run.retry_at = time.monotonic() + RETRY_SECONDS
        _log.warning(
            "Saving %s failed, and the training goes on; older checkpoints are as they were, and "
            "saving is tried again. Told at step %d: %s",
            failure.job.what,
            run.step,
            failure.error,
        )


def unwritten_best(trainer: "TrainerModule") -> str | None:
    """What the best model is called, if it is not on the disk when all that can be written is."""
    trainer._made.saver.wait()
    return next((job.what for job in trainer._made.saver.undone() if job.kind == "best"), None)


def finish_saving(trainer: "TrainerModule", run: Run) -> list[str]:
    """Waits until everything is written, and says what is not.

    Returns:
        What could not be written.
    """
    with run.ledger.spent("checkpoints"):
        trainer._made.saver.wait()
    tell_failures(trainer, run)
    undone = [job.what for job in trainer._made.saver.undone()]
    if undone:
        _log.error(
            "NOT SAVED: %s could not be written to %s. The trainer still holds the state: free "
            "space on the disk, then call trainer.save_snapshot().",
            " and ".join(undone),
            trainer.log_dir,
        )
    return undone


def state_tree(state: Any) -> PyTree:
    """The arrays of a state by the names of its fields; any pytree but Flax's stays as it is.

    What an option adds is there with the option only, so that older checkpoints fit.
    """
    if not is_dataclass(state):
        return state
    return {
        field.name: value
        for field in fields(state)
        if field.metadata.get("pytree_node", True)
        and ((value := getattr(state, field.name)) is not None or field.name not in OPTIONAL)
    }


def _progress(trainer: "TrainerModule", run: Run) -> dict[str, Any]:
    """All of a run that is no array, as it is now."""
    now = time.monotonic()
    with noting(f"{trainer._made.name}.on_save_checkpoint", run.where("train")):
        extra = dict(trainer.on_save_checkpoint())
    return {
        "step": run.step,
        "epoch": run.epoch,
        "stage": run.stage.value,
        "total_steps": run.total_steps,
        "stop_reason": run.stop_reason if run.is_asked_to_stop else None,
        "seconds": now - run.started,
        "seconds_of_epoch": now - run.epoch_started,
        "best": None if run.best is None else plain_metrics(run.best),
        "row": plain_metrics(run.row),
        "logged": plain_metrics(run.logged),
        "callbacks": callback_states(trainer.callbacks),
        "extra": extra,
        "config": plain(trainer.config),
        "devices": jax.device_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _means(interval: Any, epoch: Any) -> ScalarMetrics | None:
    """The means of the epoch so far; None when no batch was seen since the last resume."""
    if not isinstance(interval, Metrics):
        return compute(epoch, "train/") if isinstance(epoch, Metrics) else None
    whole = interval if epoch is None else merge(rebuilt(epoch, like=interval), interval)
    return compute(whole, "train/")


def _leaves(metrics: Metrics | SavedMetrics | None) -> list[Any] | None:
    if metrics is None:
        return None
    return metrics.leaves if isinstance(metrics, SavedMetrics) else jax.tree.leaves(metrics)
