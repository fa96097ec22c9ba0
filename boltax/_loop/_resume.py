"""Goes on with a run: puts what a resume checkpoint holds back where it came from.

Everything is read and checked before anything is changed: a checkpoint that does not fit leaves the
run's folder and the trainer as they were.
"""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from boltax._base._types import Json
from boltax._build._parts import Parts
from boltax._loop._counters import Counters, Stage
from boltax._loop._run import Run
from boltax._loop._saving import saved_metrics
from boltax._loop._trainees import Trainees
from boltax.checkpoint._earlier import earlier_runs
from boltax.checkpoint._plain import plain
from boltax.checkpoint._progress_fields import check_progress
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints, locate_resume
from boltax.checkpoint._rundir import RunDirectory
from boltax.data._fingerprint import check_fingerprint
from boltax.errors import BoltaxError, CheckpointError, DataError
from boltax.optim._build import needs_total_steps
from boltax.optim._resettings import changed_settings

_log = logging.getLogger("boltax")


def resume_run(trainees: Trainees, resume: Literal[True] | str | os.PathLike[str]) -> bool:
    """Goes on with a run where its newest good resume checkpoint was saved.

    Args:
        trainees: what is trained, as it is before the first step: it has the form of what was
            saved.
        resume: True for the run in the trainer's own folder; or the folder of another run, or of
            one of its resume checkpoints.

    Returns:
        Whether there was one; a run of its own that has none starts from the beginning.

    Raises:
        CheckpointError: when there is none in the folder that was named, all are damaged, or the
            state is another one.
        DataError: when the checkpoint was saved with other training data.
    """
    run, parts = trainees.run, trainees.parts
    own = parts.directory
    folder, step = (own.path, None) if resume is True else locate_resume(resume)
    found = trainees.find(ResumeCheckpoints(RunDirectory(folder).resume), step)
    if found is None:
        if resume is not True:
            raise CheckpointError(
                f"Received resume={os.fspath(resume)!r}, a run without a resume checkpoint; "
                "expected one that was interrupted. Leave out resume to train from the start."
            )
        _say_nothing_to_resume(parts)
        return False
    check_progress(found)
    progress = found.progress
    with readable(found):
        is_new_data = _is_new_data(run, progress["data"])
        _warn_of_changes(parts, run, progress, is_new_data=is_new_data)
        _keep_schedule(trainees, schedule_steps(progress))
        counters = Counters.from_json(progress)
        run.go_on_from(_with_new_data(counters) if is_new_data else counters)
        if not is_new_data:
            run.metrics.interval = saved_metrics(found.arrays["interval"])
            run.metrics.epoch = saved_metrics(found.arrays["epoch"])
        trainees.take(found)
    parts.describe()
    # A future that is left behind, or damaged, must not pass for the newest.
    newest = ResumeCheckpoints(own.resume).newest_step
    run.clock.is_due = found.step != parts.steps.placement.group.of_first("the newest", newest)
    parts.logger.resume(run.step)
    parts.progress.note(
        f"Goes on from step {run.step}, epoch {run.epoch}, saved {progress['time']}"
    )
    return True


@contextmanager
def readable(found: Resume) -> Generator[None]:
    """Within it a value that is missing or of another type is an error that names the file."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, BoltaxError):
            raise
        raise CheckpointError(
            f"Received {found.folder}, whose progress.json lacks something or holds another type "
            f"of value ({type(error).__name__}: {error}); expected one as boltax writes it, by the "
            "same kind of training. A run and a population each go on with their own; give the "
            "trainer a folder of its own."
        ) from error


def _is_new_data(run: Run, saved: Json) -> bool:
    """Whether the training data are others, which is refused where nobody has said so."""
    try:
        check_fingerprint(saved["fingerprint"], run.train_source.fingerprint(), "train_loader")
        is_new = False
    except DataError as error:
        if not run.takes_new_data:
            error.add_note(
                "To go on with other data on purpose, or another batch size, write "
                "train_model(..., resume=True, new_data=True)."
            )
            raise
        is_new = True
    return is_new


def _with_new_data(counters: Counters) -> Counters:
    """Counters at the end of the running epoch, whose place the new data do not have."""
    within = counters.stage in (Stage.TRAIN, Stage.MIDWAY)
    ended = {"stage": Stage.COMPLETE, "record": {}, "row": {}, "logged": {}} if within else {}
    return replace(counters, cursor=None, **ended)


def _warn_of_changes(parts: Parts, run: Run, progress: Json, *, is_new_data: bool) -> None:
    """Says in one line what is not as it was, and what stays."""
    saved, now = progress["config"], plain(parts.config)
    names = [n for n in {**saved, **now} if saved.get(n) != now.get(n) and n not in _NO_MATTER]
    changes: list[str] = []
    for name in names:
        old, new = saved.get(name), now.get(name)
        keys = changed_settings(old, new) if name == "optimizer_hparams" else []
        changes += [f"{name}[{key!r}]: {_at(old, key)!r} -> {_at(new, key)!r}" for key in keys]
        changes += [] if keys else [f"{name}: {old!r} -> {new!r}"]
    total = run.limits.total_steps
    if is_new_data:
        changes.append("the training data: the run goes on with their next epoch")
    if progress["total_steps"] != total:
        changes.append(f"steps in all: {progress['total_steps']} -> {total}")
    devices = parts.steps.placement.known_devices
    if progress["devices"] != devices:
        changes.append(f"devices: {progress['devices']} -> {devices}")
    processes = parts.steps.placement.group.count
    older = progress["data"].get("processes", processes)  # older populations had one
    if older != processes:
        changes.append(f"processes: {older} -> {processes}")
    is_elsewhere = progress["devices"] != devices or older != processes or "parallel" in names
    if changes:
        _log.warning(
            "The run goes on with other settings than it was saved with: %s. These hold from now "
            "on. What training has made stays: parameters, the optimizer's averages and counts, "
            "step, best model, history%s.%s",
            "; ".join(changes),
            "" if isinstance(now.get("optimizer_hparams"), dict | None) else _TRANSFORMATION,
            _ROUNDING if is_elsewhere else "",
        )


_TRANSFORMATION = "; and so do the numbers in the state of a transformation of your own"


def _at(settings: Any, key: str) -> Any:
    """The value of a setting, ``"optimizers.generator.lr"`` of one of several."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def schedule_steps(progress: Json) -> int | None:
    """Over how many steps the schedule was laid out at the first start; None when unknown.

    Older checkpoints have the steps in all alone.
    """
    steps = progress.get("schedule_steps", progress["total_steps"])
    if steps is not None and (type(steps) is not int or steps < 1):
        raise TypeError(f"schedule_steps is {steps!r}")
    return steps


def _keep_schedule(trainees: Trainees, steps: int | None) -> None:
    """Lays the schedule out over the steps of the first start, where a resume has others."""
    run, parts = trainees.run, trainees.parts
    if (wanted := run.limits.schedule_steps) is not None:
        if wanted != steps:
            _log.warning(
                "The schedule of the learning rate is laid out over %d steps now, and was over %s.",
                wanted,
                steps,
            )
        return
    run.limits = replace(run.limits, schedule_steps=steps)
    total, optimizer = run.limits.total_steps, parts.config["optimizer_hparams"]
    is_text = isinstance(optimizer, str)  # a transformation, in words
    is_laid_out = not is_text and needs_total_steps(optimizer)
    if steps in (None, total) or not (is_laid_out or parts.overrides("init_optimizer")):
        return
    trainees.keep_schedule(steps or 0)
    _log.warning(
        "The schedule of the learning rate stays laid out over %d steps%s, those of the first "
        "start.%s",
        steps,
        "" if total is None else f" of now {total}",
        " Later steps have its last value." if total is None or total > (steps or 0) else "",
    )


_ROUNDING = (
    " On other devices the same examples follow in the same order, and the last bits of sums may "
    "differ."
)
_NO_MATTER = ("logger_params", "enable_progress_bar", "debug")


def _say_nothing_to_resume(parts: Parts) -> None:
    own = Path(parts.folder)
    others = [
        folder
        for folder in (*own.parent.glob("version_*"), *earlier_runs(own))
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
        parts.progress.note(text)
