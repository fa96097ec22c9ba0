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
                for each chunk of batches:              on the device ahead of its use; a chunk
                                                        ends where something below is due
                    state, metrics = step(state, metrics, batch)      compiled, asynchronous,
                                                        all steps of the chunk in one dispatch
                    loss not finite? stop, skip or continue
                    one validation batch, once          as soon as its step is compiled
                    at `callback.next_step`:            Callback.on_step_end
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
of the last consumed batch, and the counters of `Run`: these are what `_saving` writes and `_resume`
brings back, to the last of the three stages that was reached. The host waits for the device only
where a record is written: behind the next chunk, unless a callback has to see it with its state.
The steps themselves are in `_epoch.py`, the records in `_record.py`.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax

from boltax._base._types import ScalarMetrics
from boltax._loop._begin import check_monitors, prepare
from boltax._loop._end import end_early, test
from boltax._loop._epoch import already, open_train_source, running
from boltax._loop._notify import notify, tell_optimizer
from boltax._loop._record import log, scalars
from boltax._loop._resume import history_rows
from boltax._loop._run import Run, Stage, planned_steps
from boltax._loop._saving import (
    finish_saving,
    is_save_due,
    save_resume,
    save_small,
    save_trigger,
)
from boltax._progress._progress import set_metrics
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Saver
from boltax.errors import noting
from boltax.loggers._history import History
from boltax.metrics._accumulate import to_host

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
    trainer._made.saver = Saver()
    trainer._made.steps.compilations.ledger = run.ledger
    for loader, name in ((val_loader, "val_loader"), (test_loader, "test_loader")):
        if loader is not None:
            run.source(loader, name)
    run.train_source = open_train_source(trainer, run, train_loader)
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
            with _hook(trainer, run, "on_training_end", "train"):
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
            trainer._made.progress.close()
            trainer._made.progress.note(run.ledger.report())
    if run.signals.received is not None:
        run.signals.leave()
    return {**(run.best or {}), **test_metrics}


def _epochs(trainer: "TrainerModule", train_loader: Any, val_loader: Any) -> None:
    run, history = running(trainer), History(RunDirectory(trainer.log_dir).history)
    first = run.epoch + (run.stage is Stage.COMPLETE)
    if run.stage is not Stage.COMPLETE:
        run.should_stop()  # notes the limit that ended the steps of an epoch which is resumed
    last = run.epoch if run.is_over else run.num_epochs or 0
    numbers = range(first, max(last, run.epoch) + 1)
    bar = trainer.tracker(numbers, desc="Epochs", unit="epoch", **already(first - 1, last))
    for run.epoch in bar:
        if run.stage is Stage.COMPLETE:
            run.begin_epoch()
            notify(trainer, run, "on_training_epoch_start", "train")
        if run.stage is Stage.TRAIN:
            _train(trainer, train_loader)
        if run.sanity_check is not None:
            run.sanity_check.finish()
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
        trainer._made.progress.note(
            f"Stopped after epoch {run.epoch}, step {run.step}: {run.stop_reason}"
        )


def _train(trainer: "TrainerModule", train_loader: Any) -> None:
    """The training of an epoch, with its record and hooks."""
    run = running(trainer)
    run.record = record = trainer.train_epoch(train_loader)
    # An override of train_epoch counts in the state only.
    run.step = max(run.step, int(jax.device_get(trainer.state.step)))
    seconds = {"time/train": time.monotonic() - run.epoch_started}
    row = {"epoch": run.epoch, "step": run.step, **record, **seconds}
    log(trainer, run, {"epoch": run.epoch, **record}, run.step)
    with _hook(trainer, run, "on_training_epoch_end", "train"):
        trainer.on_training_epoch_end(run.epoch)
    logged = run.logged | notify(trainer, run, "on_training_epoch_end", "train", record, row=row)
    run.row, run.stage = row | logged, Stage.VALIDATE


def _validate(trainer: "TrainerModule", val_loader: Any) -> None:
    """The validation of an epoch; it ends with the row of the epoch, and the best model saved."""
    run = running(trainer)
    record = run.record
    if val_loader is None:  # nothing to compare by: the newest model is the one to keep
        run.best = dict(record)
        trainer.save_model(run.step)
        trainer.save_metrics("best_eval", run.best)
        return
    with (
        run.ledger.spent("evaluation"),
        noting(f"{trainer._made.name}.eval_model", run.where("val")),
    ):
        metrics = trainer.eval_model(val_loader, log_prefix="val/")
    with _hook(trainer, run, "on_validation_epoch_end", "val"):
        trainer.on_validation_epoch_end(run.epoch, metrics, val_loader)
    metrics = {name: to_host(value) for name, value in metrics.items()}
    metrics |= notify(
        trainer, run, "on_validation_epoch_end", "val", metrics, row=run.row | metrics
    )
    log(trainer, run, metrics, run.step)
    tell_optimizer(trainer, metrics)
    trainer.save_metrics(f"eval_epoch_{run.epoch:03d}", metrics)
    with _hook(trainer, run, "is_new_model_better", "val"):
        is_better = bool(trainer.is_new_model_better(metrics, run.best))
    if is_better:
        run.best = {**metrics, **record}
        trainer.save_model(run.step)
        trainer.save_metrics("best_eval", run.best)
    run.row |= metrics


@contextmanager
def _hook(trainer: "TrainerModule", run: Run, name: str, phase: str) -> Generator[None]:
    """Around a method that a subclass may override: its time, and a note on its exceptions."""
    with run.ledger.spent("hooks"), noting(f"{trainer._made.name}.{name}", run.where(phase)):
        yield


def _shown(row: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch's row the progress bar has room for: validation first."""
    numbers = scalars(row)
    return {n: numbers[n] for phase in ("val/", "train/") for n in numbers if n.startswith(phase)}
