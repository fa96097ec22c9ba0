"""Saves a run so that it can go on: what a resume checkpoint holds, and when one is written.

    states on the device  --copy on the device-->  background thread  -->  files

The loop pays for the copy; everything else happens while it goes on. Best models and snapshots take
the same way, in one line, so that no resume checkpoint is on disk before the best model that it
speaks of. A run and a population save through this file alone, so that what cannot be written is
told at its step, tried again, and said at the end.
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import jax

from boltax._base._types import PyTree, ScalarMetrics, State, Variables
from boltax._build._parts import Parts
from boltax._loop._accumulators import Accumulated
from boltax._loop._counters import Stage
from boltax._loop._run import Run
from boltax._loop._trainees import Trainees
from boltax.checkpoint._best import BestCheckpoints, Kept
from boltax.checkpoint._plain import plain
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._saver import Job
from boltax.checkpoint._step_folders import THREAD, with_step
from boltax.errors import NotSavedError
from boltax.metrics._accumulate import Metrics, SavedMetrics
from boltax.parallel._table import lies

OPTIONAL = ("ema", "evaluations", "loss_scale")
"""Fields of the state that only an option of the loop adds."""
RETRY_SECONDS = 30.0
"""After a save that failed, the next one is tried so much later, or when it is due anyway."""
_log = logging.getLogger("boltax")


def is_save_due(trainees: Trainees, *, ended_epoch: int | None = None) -> bool:
    """Whether to save a resume checkpoint now: it is time, and the last one is written.

    Whatever else is being written: the new one takes its place behind that.
    Tells what failed since this was last asked.

    Args:
        trainees: what is trained.
        ended_epoch: the epoch that ends at this moment, if one does.
    """
    run, parts = trainees.run, trainees.parts
    tell_failures(parts, run)
    if not run.clock.ask(run.step, ended_epoch):
        return False
    is_busy = parts.saver.is_busy_with("resume")
    if run.agreement is None:
        return not is_busy
    return not run.agreement.any_of("whether the last checkpoint is written", is_busy)


def save_resume(trainees: Trainees) -> None:
    """Has a resume checkpoint of this moment written in the background.

    Raises:
        TrainingError: when the state is lost, because the step that had its memory failed.
    """
    run, parts = trainees.run, trainees.parts
    point = run.counters.point
    if not parts.checkpoint.keep_last or run.clock.saved_point == point:
        return
    if run.is_cut and run.stage is not Stage.TRAIN:
        return  # what goes on is the epoch, from the step at which it was cut
    with run.ledger.spent("checkpoints"):
        trainees.check_whole()
        run.clock.note_saved(point)
        if run.agreement is not None:
            run.agreement.forget()
        parts.logger.flush()  # what was recorded so far will not be recorded again
        _submit_resume(trainees)


def _submit_resume(trainees: Trainees) -> None:
    run, parts = trainees.run, trainees.parts
    interval, epoch = (_copied(parts, m) for m in (run.metrics.interval, run.metrics.epoch))
    saved = trainees.content()
    counters, clock, source = run.now(), run.clock, run.train_source
    rest = {
        "total_steps": run.limits.total_steps,
        "schedule_steps": run.limits.schedule_steps or run.limits.total_steps,
        "config": plain(parts.config),
        "devices": parts.steps.placement.known_devices,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "lies": lies(saved.arrays),
        **saved.extra,
    }
    what, processes = f"the resume checkpoint of step {counters.step}", parts.steps.placement.group
    best = BestCheckpoints(parts.directory.best, keep=parts.checkpoint.keep_best)
    checkpoints = ResumeCheckpoints(parts.directory.resume, keep=parts.checkpoint.keep_last)

    def write() -> None:
        progress = counters.to_json() | saved.late(interval, epoch)
        progress["data"] |= {
            "fingerprint": source.fingerprint(),
            "processes": parts.steps.placement.group.count,
        }
        best_steps = clock.best_steps[-best.keep :]  # older trainings may have left others there
        held = saved.arrays | {"interval": _leaves(interval), "epoch": _leaves(epoch)}
        checkpoints.save(counters.step, held, {**progress, **rest, "best_steps": best_steps})
        if best_steps:  # those that only an older resume checkpoint needed
            stay = {*best_steps, *checkpoints.best_steps()}
            processes.by_first(what, partial(best.discard_except, stay), thread=THREAD)
        saved.done()

    parts.saver.submit(Job(what, "resume", write))


def save_best(parts: Parts, run: Run | None, variables: Variables, step: int) -> None:
    """Saves variables as the best of a run so far; see `_save_variables`."""
    best = Kept(step, dict((run and run.best) or {}))
    others = tuple(model for model in (run.clock.kept if run else ()) if model.step != step)
    what = f"the best model of step {step}"
    _save_ranked(parts, run, variables, (*others, best), step, "best", what)


def save_further(
    parts: Parts, run: Run, variables: Variables, kept: tuple[Kept, ...], step: int
) -> None:
    """Saves variables below the best; see `_save_variables`.

    Args:
        parts: have the saver.
        run: the run.
        variables: the model's.
        kept: all models that stay, the best last, with this one in its place.
        step: which one it is.
    """
    # Another kind than "best": one that could not be written yet must not give way to this one.
    what = f"the model of step {step}"
    _save_ranked(parts, run, variables, kept, step, "further", what)


def _save_ranked(
    parts: Parts,
    run: Run | None,
    variables: Variables,
    kept: tuple[Kept, ...],
    step: int,
    kind: str,
    what: str,
) -> None:
    directory, keep = parts.directory, parts.checkpoint.keep_best
    folder, resume = BestCheckpoints(directory.best, keep=keep), ResumeCheckpoints(directory.resume)
    metrics = next(model.metrics for model in kept if model.step == step)
    ranking = [model.step for model in kept]

    def write(copy: Variables) -> None:
        folder.save(step, copy, metrics, ranking=ranking, protected=resume.best_steps())
        if run is not None:
            run.clock.best_steps = with_step(run.best_steps, step, ranking)

    if run is not None:
        run.clock.kept = kept[-keep:]
    _save_variables(parts, run, variables, what, kind, write)


def save_snapshot(parts: Parts, run: Run | None, variables: Variables, step: int) -> None:
    """Saves variables to stay, in ``checkpoints/saved``; see `_save_variables`."""
    folder = BestCheckpoints(parts.directory.saved, keep=sys.maxsize)
    write: Callable[[Variables], None] = partial(folder.save, step, metrics={})
    _save_variables(parts, run, variables, f"the model of step {step}", f"saved {step}", write)


def _save_variables(
    parts: Parts,
    run: Run | None,
    variables: Variables,
    what: str,
    kind: str,
    write: Callable[[Variables], None],
) -> None:
    """Writes variables in the background while a run trains, else before it returns.

    Raises:
        RunDirectoryError: when they cannot be written, and no run is training.
    """
    if run is None or not run.is_active:
        parts.saver.wait()
        write(variables)
        return
    with run.ledger.spent("checkpoints"):  # it waits while two are to be written
        copy = parts.copies.copy(variables)
        parts.saver.submit(Job(what, kind, partial(write, copy)))


def save_small(
    parts: Parts, run: Run | None, what: str, write: Callable[..., None], *arguments: Any
) -> None:
    """Writes something without arrays: in the background while a run trains, else at once.

    Args:
        parts: have the saver.
        run: the run; None before the first.
        what: names it to people.
        write: writes it.
        *arguments: those of `write`.
    """
    if not parts.steps.placement.group.is_first:
        return  # one process writes it
    if run is not None and run.is_active:
        parts.saver.submit(Job(what, what, partial(write, *arguments), has_arrays=False))
    else:
        write(*arguments)


def tell_failures(parts: Parts, run: Run) -> None:
    """Warns of what could not be written since the last time, and plans another try."""
    for failure in parts.saver.failures():
        run.clock.retry_at = time.monotonic() + RETRY_SECONDS
        _log.warning(
            "Saving %s failed, and the training goes on; older checkpoints are as they were, and "
            "saving is tried again. Told at step %d: %s",
            failure.job.what,
            run.step,
            failure.error,
        )


def unwritten_best(parts: Parts) -> str | None:
    """What the best model is called, if it is not on the disk when all that can be written is."""
    parts.saver.wait()
    return next((job.what for job in parts.saver.undone() if job.kind == "best"), None)


def finish_saving(parts: Parts, run: Run) -> list[str]:
    """Waits until everything is written, and says what is not.

    Returns:
        What could not be written.
    """
    with run.ledger.spent("checkpoints"):
        parts.saver.wait()
    tell_failures(parts, run)
    undone = [job.what for job in parts.saver.undone()]
    if undone:
        _log.error(
            "NOT SAVED: %s could not be written to %s. The trainer still holds the state: free "
            "space on the disk, then call trainer.save_snapshot(), of a population "
            "population.member(number).save_snapshot().",
            " and ".join(undone),
            parts.folder,
        )
    return undone


def check_saved(parts: Parts, run: Run, tested: ScalarMetrics) -> None:
    """Waits until everything is written, at the end of a run.

    Args:
        parts: have the saver.
        run: the run.
        tested: the metrics of its test.

    Raises:
        NotSavedError: when something is not, so that a script ends with a status that says so.
    """
    if undone := finish_saving(parts, run):
        raise NotSavedError(
            f"Received a run that has ended NOT SAVED: {' and '.join(undone)} could not be written "
            f"to {parts.folder}; expected space on its disk. All else is done: the trainer holds "
            "the state, and this error the metrics, as its attribute metrics. Free space, then "
            "call trainer.save_snapshot().",
            {**(run.best or {}), **tested},
        )


def state_tree(state: State) -> PyTree:
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


def _copied(parts: Parts, metrics: Accumulated) -> Accumulated:
    if metrics is None or (isinstance(metrics[0], Metrics) and not metrics[0].names):
        return None  # the names come with the first step
    return [parts.copies.of_metrics(one) for one in metrics]


def _leaves(metrics: Accumulated) -> list[Any] | None:
    """The arrays of accumulated metrics; those of a single state stand alone."""
    if metrics is None:
        return None
    leaves = [m.leaves if isinstance(m, SavedMetrics) else jax.tree.leaves(m) for m in metrics]
    return leaves[0] if len(leaves) == 1 else leaves


def saved_metrics(leaves: Any) -> Accumulated:
    """Accumulated metrics out of a checkpoint, from what `_leaves` gave."""
    if leaves is None:
        return None
    each = leaves if leaves and isinstance(leaves[0], list | tuple) else [leaves]
    return [SavedMetrics(list(one)) for one in each]
