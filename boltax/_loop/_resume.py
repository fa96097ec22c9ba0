"""Goes on with a run: puts what a resume checkpoint holds back where it came from.

Everything is read and checked before anything is changed: a checkpoint that does not fit leaves the
run's folder and the trainer as they were.
"""

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from boltax._base._types import PyTree
from boltax._loop._run import Run, Stage
from boltax._loop._saving import state_tree
from boltax.callbacks._states import load_callback_states
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._metrics_json import read_metrics
from boltax.checkpoint._plain import plain
from boltax.checkpoint._resume import ResumeCheckpoints, locate_resume
from boltax.checkpoint._rundir import RunDirectory
from boltax.data._cursor import cursor_from_json
from boltax.data._fingerprint import check_fingerprint
from boltax.errors import CheckpointError, ConfigurationError, noting
from boltax.loggers._history import History
from boltax.metrics._accumulate import SavedMetrics

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

_log = logging.getLogger("boltax")


def resume_run(
    trainer: "TrainerModule", run: Run, resume: Literal[True] | str | os.PathLike[str]
) -> bool:
    """Goes on with a run where its newest good resume checkpoint was saved.

    Args:
        trainer: with an optimizer, so that its state has the form of the saved one.
        run: the counters to set.
        resume: True for the run in the trainer's own folder; or the folder of another run, or of
            one of its resume checkpoints.

    Returns:
        Whether there was one; a run of its own that has none starts from the beginning.

    Raises:
        CheckpointError: when there is none in the folder that was named, all are damaged, or the
            state is another one.
        DataError: when the checkpoint was saved with other training data.
    """
    own = RunDirectory(trainer.log_dir)
    folder, step = (own.path, None) if resume is True else locate_resume(resume)
    is_own = folder.resolve() == own.path.resolve()
    template = {"state": state_tree(trainer.state), "interval": ..., "epoch": ...}
    found = ResumeCheckpoints(RunDirectory(folder).resume).restore(template, step)
    if found is None:
        if resume is not True:
            raise CheckpointError(
                f"Received resume={os.fspath(resume)!r}, a run without a resume checkpoint; "
                "expected one that was interrupted. Leave out resume to train from the start."
            )
        _say_nothing_to_resume(trainer)
        return False
    progress = found.progress
    try:
        _check_data(run, progress["data"])
        _warn_of_changes(trainer, run, progress)
        _set_counters(run, progress, found.arrays)
        _restore_best(run, RunDirectory(folder), own, progress["best_steps"], is_own=is_own)
        extra = progress["extra"]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Received {found.folder}, whose progress.json lacks something or holds another type "
            f"of value ({type(error).__name__}: {error}); expected one as boltax writes it."
        ) from error
    trainer.state = _with_arrays(trainer.state, found.arrays["state"])
    load_callback_states(trainer.callbacks, progress["callbacks"])
    with noting(f"{trainer._made.name}.on_load_checkpoint", run.where("train")):
        trainer.on_load_checkpoint(extra)
    _write_files(trainer, run, own)
    # A future that is left behind, or damaged, must not pass for the newest.
    run.is_save_due = found.step != ResumeCheckpoints(own.resume).newest_step()
    trainer.logger.resume(run.step)
    trainer._made.progress.note(
        f"Goes on from step {run.step}, epoch {run.epoch}, saved {progress['time']}"
    )
    return True


def start_anew(trainer: "TrainerModule") -> bool:
    """Prepares the folder for a run that starts at step 0, where another one may have been.

    Returns:
        Whether a resume checkpoint of step 0 has to be saved, to come before those of the other.
    """
    directory = RunDirectory(trainer.log_dir)
    History(directory.history).replace([])
    older = ResumeCheckpoints(directory.resume).newest_step()
    if older is None:
        return False
    trainer.logger.resume(0)
    _log.warning(
        "%s starts from the beginning in %s, which holds a run of %d steps that now makes way. "
        "train_model(..., resume=True) goes on with such a run; logger_params={...} without "
        "log_dir gives each run a folder of its own.",
        trainer._made.name,
        trainer.log_dir,
        older,
    )
    return trainer.checkpoint.keep_last > 0


def _check_data(run: Run, saved: dict[str, Any]) -> None:
    check_fingerprint(saved["fingerprint"], run.train_source.fingerprint(), "train_loader")
    if saved["processes"] != jax.process_count():
        raise ConfigurationError(
            f"Received a run of {saved['processes']} processes; expected as many as now, "
            f"{jax.process_count()}, since each has its part of the data. Start as many."
        )


def _warn_of_changes(trainer: "TrainerModule", run: Run, progress: dict[str, Any]) -> None:
    """Says what is not as it was; the state, with the learning rate in it, is the saved one."""
    saved, now = progress["config"], plain(trainer.config)
    names = [n for n in {**saved, **now} if saved.get(n) != now.get(n) and n not in _NO_MATTER]
    changes = [f"{name}: {saved.get(name)!r} -> {now.get(name)!r}" for name in names]
    if progress["total_steps"] != run.total_steps:
        changes.append(f"steps in all: {progress['total_steps']} -> {run.total_steps}")
    if progress["devices"] != jax.device_count():
        changes.append(f"devices: {progress['devices']} -> {jax.device_count()}")
    if changes:
        _log.warning(
            "The run goes on with other settings than it was saved with: %s. What is part of the "
            "state stays as it was saved, the learning rate too: to change that, start a new run "
            "with trainer.load_weights(folder).",
            "; ".join(changes),
        )


_NO_MATTER = ("logger_params", "enable_progress_bar", "debug")


def _set_counters(run: Run, progress: dict[str, Any], arrays: dict[str, Any]) -> None:
    now = time.monotonic()
    run.step, run.epoch = int(progress["step"]), int(progress["epoch"])
    run.stage = Stage(progress["stage"])
    cursor = progress["data"]["cursor"]
    run.cursor = None if cursor is None else cursor_from_json(cursor)
    run.is_resumed = run.cursor is not None
    run.interval, run.accumulated = (
        None if arrays[name] is None else SavedMetrics(list(arrays[name]))
        for name in ("interval", "epoch")
    )
    run.record, run.row, run.logged = (
        read_metrics(progress[name]) for name in ("record", "row", "logged")
    )
    run.best = None if progress["best"] is None else read_metrics(progress["best"])
    run.best_steps = list(progress["best_steps"])
    run.history = [read_metrics(row) for row in progress["history"]]
    run.stop_reason = progress["stop_reason"]
    run.is_asked_to_stop = run.stop_reason is not None
    run.started = now - float(progress["seconds"])
    run.epoch_started = now - float(progress["seconds_of_epoch"])
    run.saved_point = None


def _restore_best(
    run: Run, source: RunDirectory, own: RunDirectory, steps: list[int], *, is_own: bool
) -> None:
    """Brings the best models back to those of the checkpoint, without any that came after it."""
    best = BestCheckpoints(own.best)
    if not is_own and steps:
        saved = BestCheckpoints(source.best).restore(step=steps[-1])
        best.save(saved.step, saved.variables, saved.metrics)
    elif is_own:
        best.go_back(steps, ResumeCheckpoints(own.resume).best_steps())
    if run.best is not None and steps[-1:] != best.steps()[-1:]:
        _log.warning(
            "The best model so far, of step %s, is not in %s: the next validation counts as the "
            "best.",
            steps[-1] if steps else "?",
            own.best,
        )
        run.best = None


def _write_files(trainer: "TrainerModule", run: Run, own: RunDirectory) -> None:
    """Has the run's files hold what they held at the checkpoint."""
    History(own.history).replace(history_rows(run.history))
    if run.best is not None:
        trainer.save_metrics("best_eval", run.best)
    for path in own.metrics.glob("eval_epoch_*.json"):
        number = path.stem.removeprefix("eval_epoch_")
        if number.isdigit() and int(number) > run.epoch:
            path.unlink()


def history_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for ``history.csv``: numbers, and no times, so that a resumed run has the same file."""
    return [
        {
            name: value
            for name, value in row.items()
            if isinstance(value, int | float) and not name.startswith("time/")
        }
        for row in rows
    ]


def _with_arrays(state: Any, arrays: PyTree) -> Any:
    return state.replace(**arrays) if hasattr(state, "replace") else arrays


def _say_nothing_to_resume(trainer: "TrainerModule") -> None:
    own = Path(trainer.log_dir)
    others = [
        folder
        for folder in own.parent.glob("version_*")
        if folder != own
        and ResumeCheckpoints(RunDirectory(folder).resume).newest_step() is not None
    ]
    text = f"There is nothing to resume in {own}: starting from the beginning."
    if others:
        newest = max(others, key=lambda folder: folder.stat().st_mtime)
        _log.warning(
            "%s %s holds a run that can be resumed: train_model(..., resume=%r), or give all "
            "starts one folder: logger_params={'log_dir': ...}.",
            text,
            newest,
            os.path.relpath(newest),
        )
    else:
        trainer._made.progress.note(text)
