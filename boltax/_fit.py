"""The training loop. Read this first: its pseudocode, with every hook in the order of its call.

    train_model
        one writer in the run's folder; signals are noted
        trainer.init_optimizer                          the state gets its optimizer
        resume: state, counters, place in the data, files as they were
        one validation batch                            a mistake shows now, not after an hour
        trainer.on_training_start                       Callback.on_training_start
        for each epoch:
            Callback.on_training_epoch_start            stage TRAIN
            trainer.train_epoch:
                for each batch:                         on the device ahead of its use
                    state, metrics = step(state, metrics, batch)      compiled, asynchronous
                    loss not finite? stop, skip or continue
                    every `callback.every` steps:       Callback.on_step_end
                    every `log_every` steps:            record -> Callback.on_log, loggers
                    save when due; stop?                max_steps, max_time, a callback's Stop
            record of the epoch -> loggers
            trainer.on_training_epoch_end               Callback.on_training_epoch_end
                                                        stage VALIDATE
            every `check_val_every_n_epoch` epochs, and after the last:
                trainer.eval_model
                trainer.on_validation_epoch_end         Callback.on_validation_epoch_end
                record -> loggers, metrics/*.json
                trainer.is_new_model_better? trainer.save_model
            row of the epoch -> history.csv             stage COMPLETE
            save when due; stop?
        save
        trainer.on_training_end                         Callback.on_training_end
        trainer.load_model, trainer.eval_model          on the test set; Callback.on_test_end
    on a signal: save, close, leave
    on any exception: Callback.on_exception, save, loggers and progress are closed, and it goes on

Data goes one way. What a run changes is the trainer's `state`, the accumulated metrics, the cursor
of the last consumed batch, and the counters of `Run`: these are what `_save` writes and `_resume`
brings back, to the last of the three stages that was reached. The host waits for the device only
where a record is made.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax

from boltax._after_training import end_early, test
from boltax._before_training import check_monitors, prepare
from boltax._nonfinite import NonFiniteWatch, Step
from boltax._notify import notify
from boltax._progress._progress import advance_examples, set_metrics
from boltax._resume import history_rows
from boltax._run import Run, Stage, planned_steps
from boltax._save import (
    finish_saving,
    is_save_due,
    save_resume,
    save_small,
    save_trigger,
)
from boltax._types import ScalarMetrics
from boltax.callbacks._base import overriding
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Saver
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import TrainingError, noting
from boltax.loggers._history import History
from boltax.metrics._accumulate import Metrics, compute, rebuilt, to_host

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def fit(
    trainer: "TrainerModule",
    train_loader: Any,
    val_loader: Any,
    test_loader: Any,
    *,
    num_epochs: int,
    max_steps: int | None,
    max_seconds: float | None,
    resume: bool | str | os.PathLike[str] | None,
) -> ScalarMetrics:
    """Trains, validates, keeps the best, tests on it; see `TrainerModule.train_model`."""
    run = trainer.run = Run(num_epochs=num_epochs, max_steps=max_steps)
    trainer.saver = Saver()
    for loader, name in ((val_loader, "val_loader"), (test_loader, "test_loader")):
        if loader is not None:
            run.source(loader, name)
    run.train_source = _train_source(trainer, run, train_loader)
    steps_per_epoch = run.train_source.num_batches
    run.total_steps = planned_steps(num_epochs, steps_per_epoch, max_steps)
    check_monitors(trainer, val_loader)
    run.deadline = None if max_seconds is None else time.monotonic() + max_seconds
    run.save_trigger = save_trigger(trainer.checkpoint)
    test_metrics: ScalarMetrics = {}
    with RunLock(trainer.log_dir), run.signals:
        try:
            prepare(trainer, run, val_loader, steps_per_epoch, resume)
            _epochs(trainer, train_loader, val_loader)
            save_resume(trainer, run)
            with noting(f"{trainer.name}.on_training_end", run.where("train")):
                trainer.on_training_end()
            notify(trainer, run, "on_training_end", "train")
            run.is_saveable = False  # what follows is about the best model, not the last state
            test_metrics = {} if test_loader is None else test(trainer, run, test_loader)
            finish_saving(trainer, run)
            trainer.logger.finalize("success")
        except BaseException as error:
            end_early(trainer, run, error)
            if run.signals.received is None:
                raise
        finally:
            run.is_active = run.is_saveable = False
            run.sources.clear()
            trainer.progress.close()
    if run.signals.received is not None:
        run.signals.leave()
    return {**(run.best or {}), **test_metrics}


def _epochs(trainer: "TrainerModule", train_loader: Any, val_loader: Any) -> None:
    run, history = _running(trainer), History(RunDirectory(trainer.log_dir).history)
    first = run.epoch + (run.stage is Stage.COMPLETE)
    if run.stage is not Stage.COMPLETE:
        run.should_stop()  # notes the limit that ended the steps of an epoch which is resumed
    last = run.epoch if run.is_over else run.num_epochs or 0
    numbers = range(first, max(last, run.epoch) + 1)
    bar = trainer.tracker(numbers, desc="Epochs", unit="epoch", **_already(first - 1, last))
    for run.epoch in bar:
        if run.stage is Stage.COMPLETE:
            run.begin_epoch()
            notify(trainer, run, "on_training_epoch_start", "train")
        if run.stage is Stage.TRAIN:
            _train(trainer, train_loader)
        if (
            run.epoch % trainer.check_val_every_n_epoch == 0
            or run.stop_reason
            or run.epoch == run.num_epochs
        ):
            _validate(trainer, val_loader)
        run.history.append(run.row)
        row = history_rows([run.row])[0]
        save_small(trainer, f"the row of epoch {run.epoch} in history.csv", history.append, row)
        run.stage = Stage.COMPLETE
        set_metrics(bar, _shown(run.row))
        if is_save_due(trainer, run, ended_epoch=run.epoch):
            save_resume(trainer, run)
        run.signals.poll()
        if run.stop_reason:
            break
    if run.stop_reason:
        trainer.progress.note(
            f"Stopped after epoch {run.epoch}, step {run.step}: {run.stop_reason}"
        )


def _train(trainer: "TrainerModule", train_loader: Any) -> None:
    """The training of an epoch, with its record and hooks."""
    run = _running(trainer)
    run.record = record = trainer.train_epoch(train_loader)
    # An override of train_epoch counts in the state only.
    run.step = max(run.step, int(jax.device_get(trainer.state.step)))
    seconds = {"time/train": time.monotonic() - run.epoch_started}
    row = {"epoch": run.epoch, "step": run.step, **record, **seconds}
    trainer.log_metrics({"epoch": run.epoch, **record}, run.step)
    with noting(f"{trainer.name}.on_training_epoch_end", run.where("train")):
        trainer.on_training_epoch_end(run.epoch)
    logged = run.logged | notify(trainer, run, "on_training_epoch_end", "train", record, row=row)
    run.row, run.stage = row | logged, Stage.VALIDATE


def run_epoch(trainer: "TrainerModule", train_loader: Any) -> ScalarMetrics:
    """One pass over the loader; returns the means over the epoch, named ``train/...``."""
    run = _running(trainer)
    if not run.is_active:  # called by hand
        run.epoch += 1
        run.begin_epoch()
    source = _train_source(trainer, run, train_loader)
    done, left = run.steps_done, run.steps_left(source.num_batches)
    steps, callbacks = trainer.steps, overriding(trainer.callbacks, "on_step_end")
    stream = prefetch_to_device(
        islice(source.epoch(run.epoch, run.place()), left),
        depth=trainer.loop.prefetch,
        copy=not source.owns_batches,
    )
    total = None if left is None else done + left
    bar = trainer.tracker(stream, desc="Training", total=total, leave=False, **_already(done))
    watch = NonFiniteWatch(trainer, run)
    with _noting_step(run):
        for batch, cursor, count in bar:
            if not isinstance(run.interval, Metrics):
                run.interval = steps.empty_train(trainer.state, batch, run.interval)
            metrics: Any = run.interval
            trainer.state, run.interval, is_bad = steps.train(trainer.state, metrics, batch)
            before, run.cursor = run.cursor, cursor
            run.step += 1
            watch.add(Step(is_bad, run.step, batch, before))
            advance_examples(bar, count)
            for callback in callbacks:
                if run.step % callback.every == 0:
                    notify(trainer, run, "on_step_end", "train", only=callback)
            if run.step % trainer.loop.log_every == 0:
                watch.look(wait=True)
                _record(trainer, run, bar)
            if run.is_saveable and is_save_due(trainer, run):
                watch.look(wait=True)
                save_resume(trainer, run)
            if run.signals.received is not None:
                watch.look(wait=True)
                run.signals.poll()
            if run.should_stop():
                is_last = source.num_batches is not None and run.steps_done >= source.num_batches
                run.is_cut = run.is_saveable and not run.is_asked_to_stop and not is_last
                break
        watch.look(wait=True)
        if run.is_cut:
            save_resume(trainer, run)
    if isinstance(run.interval, Metrics):
        run.accumulated, run.interval = _merged(trainer, run), None
    if isinstance(run.accumulated, Metrics):
        return compute(run.accumulated, "train/")
    if run.record:  # resumed where the epoch has no step left
        return run.record
    raise TrainingError(
        f"Received no batch for epoch {run.epoch}; expected at least one step before the stop."
    )


def _merged(trainer: "TrainerModule", run: Run) -> Metrics:
    """The metrics of the epoch, up to the last step."""
    interval: Any = run.interval
    if run.accumulated is None:
        return interval
    return trainer.steps.merge(rebuilt(run.accumulated, like=interval), interval)


def _record(trainer: "TrainerModule", run: Run, bar: Any) -> None:
    """Makes a record of the steps since the last one; here the host waits for the device."""
    interval: Any = run.interval
    values = compute(interval, "train/step/")
    run.accumulated, run.interval = _merged(trainer, run), None
    run.logged |= notify(trainer, run, "on_log", "train", values)
    trainer.log_metrics(values | run.logged, run.step)
    set_metrics(
        bar, {name.removeprefix("train/step/"): value for name, value in _scalars(values).items()}
    )


def _validate(trainer: "TrainerModule", val_loader: Any) -> None:
    """The validation of an epoch; it ends with the row of the epoch, and the best model saved."""
    run = _running(trainer)
    record = run.record
    if val_loader is None:  # nothing to compare by: the newest model is the one to keep
        run.best = dict(record)
        trainer.save_model(run.step)
        trainer.save_metrics("best_eval", run.best)
        return
    with noting(f"{trainer.name}.eval_model", run.where("val")):
        metrics = trainer.eval_model(val_loader, log_prefix="val/")
    with noting(f"{trainer.name}.on_validation_epoch_end", run.where("val")):
        trainer.on_validation_epoch_end(run.epoch, metrics, val_loader)
    metrics = {name: to_host(value) for name, value in metrics.items()}
    metrics |= notify(
        trainer, run, "on_validation_epoch_end", "val", metrics, row=run.row | metrics
    )
    trainer.log_metrics(metrics, run.step)
    trainer.save_metrics(f"eval_epoch_{run.epoch:03d}", metrics)
    with noting(f"{trainer.name}.is_new_model_better", run.where("val")):
        is_better = bool(trainer.is_new_model_better(metrics, run.best))
    if is_better:
        run.best = {**metrics, **record}
        trainer.save_model(run.step)
        trainer.save_metrics("best_eval", run.best)
    run.row |= metrics


def _running(trainer: "TrainerModule") -> Run:
    if trainer.run is None or trainer.state.tx is None:
        raise TrainingError(
            "Received a call that trains before there is an optimizer; expected train_model, or "
            "trainer.init_optimizer(num_epochs, num_steps_per_epoch) first."
        )
    return trainer.run


def _train_source(trainer: "TrainerModule", run: Run, train_loader: Any) -> Source:
    source = run.source(train_loader, "train_loader", trainer.loop.steps_per_epoch)
    if source.num_batches == 0:
        next(source.epoch(1), None)  # raises the error that says what to look at
    return source


@contextmanager
def _noting_step(run: Run) -> Generator[None]:
    """Adds the step to an exception; around the whole loop, so that it costs nothing in it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised after this many completed steps: {run.where('train')}")
        raise


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _already(done: int, total: int | None = None) -> dict[str, int]:
    """What a progress bar that does not begin at 0 has to know."""
    if not done:
        return {}
    return {"initial": done} if total is None else {"initial": done, "total": total}


def _shown(row: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch's row the progress bar has room for: validation first."""
    numbers = _scalars(row)
    return {n: numbers[n] for phase in ("val/", "train/") for n in numbers if n.startswith(phase)}
