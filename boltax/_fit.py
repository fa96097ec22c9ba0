"""The training loop. Read this first: its pseudocode, with every hook in the order of its call.

    train_model
        trainer.init_optimizer                          the state gets its optimizer
        one validation batch                            a mistake shows now, not after an hour
        trainer.on_training_start                       Callback.on_training_start
        for each epoch:
            Callback.on_training_epoch_start
            trainer.train_epoch:
                for each batch:                         on the device ahead of its use
                    state, metrics = step(state, metrics, batch)      compiled, asynchronous
                    every `callback.every` steps:       Callback.on_step_end
                    every `log_every` steps:            record -> Callback.on_log, loggers
            record of the epoch -> loggers
            trainer.on_training_epoch_end               Callback.on_training_epoch_end
            every `check_val_every_n_epoch` epochs, and after the last:
                trainer.eval_model
                trainer.on_validation_epoch_end         Callback.on_validation_epoch_end
                record -> loggers, metrics/*.json
                trainer.is_new_model_better? trainer.save_model
            row of the epoch -> history.csv
            stop?                                       max_steps, max_time, a callback's Stop
        trainer.on_training_end                         Callback.on_training_end
        trainer.load_model, trainer.eval_model          on the test set; Callback.on_test_end
    on any exception: Callback.on_exception, loggers and progress are closed, and it goes on

Data goes one way. What a run changes is the trainer's `state`, the accumulated metrics, the cursor
of the last consumed batch, and the counters of `Run`. The host waits for the device only where a
record is made.
"""

import logging
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from boltax._before_training import check_monitors, check_one_batch
from boltax._notify import notify
from boltax._progress._progress import advance_examples, set_metrics
from boltax._run import Run, planned_steps
from boltax._types import ScalarMetrics
from boltax.callbacks._base import overriding
from boltax.checkpoint._rundir import RunDirectory
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import TrainingError, noting
from boltax.loggers._history import History
from boltax.metrics._accumulate import Metrics, compute, to_host

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
) -> ScalarMetrics:
    """Trains, validates, keeps the best, tests on it; see `TrainerModule.train_model`."""
    run = trainer.run = Run(num_epochs=num_epochs, max_steps=max_steps)
    for loader, name in ((val_loader, "val_loader"), (test_loader, "test_loader")):
        if loader is not None:
            run.source(loader, name)
    steps_per_epoch = _train_source(trainer, run, train_loader).num_batches
    run.total_steps = planned_steps(num_epochs, steps_per_epoch, max_steps)
    check_monitors(trainer, val_loader)
    run.deadline = None if max_seconds is None else run.started + max_seconds
    try:
        _say_where(trainer)
        trainer.init_optimizer(num_epochs, steps_per_epoch)
        trainer.state = trainer.state.replace(step=_on_device_int(trainer.state.step))
        if val_loader is not None and trainer.loop.sanity_check:
            check_one_batch(trainer, run, val_loader)
        with noting(f"{trainer.name}.on_training_start", run.where("train")):
            trainer.on_training_start()
        notify(trainer, run, "on_training_start", "train")
        run.is_active = True
        _epochs(trainer, train_loader, val_loader)
        with noting(f"{trainer.name}.on_training_end", run.where("train")):
            trainer.on_training_end()
        notify(trainer, run, "on_training_end", "train")
        test_metrics = {} if test_loader is None else _test(trainer, test_loader)
    except BaseException as error:
        notify(trainer, run, "on_exception", "train", error=error)
        trainer.logger.finalize("success" if _is_pruned(error) else "failed")
        raise
    finally:
        run.is_active = False
        run.sources.clear()
        trainer.progress.close()
    trainer.logger.finalize("success")
    return {**(run.best or {}), **test_metrics}


def _epochs(trainer: "TrainerModule", train_loader: Any, val_loader: Any) -> None:
    run, history = _running(trainer), History(RunDirectory(trainer.log_dir).history)
    history.truncate(run.epoch)
    bar = trainer.tracker(
        range(run.epoch + 1, (run.num_epochs or 0) + 1), desc="Epochs", unit="epoch"
    )
    for run.epoch in bar:
        started = time.monotonic()
        notify(trainer, run, "on_training_epoch_start", "train")
        record = trainer.train_epoch(train_loader)
        # An override of train_epoch counts in the state only.
        run.step = max(run.step, int(jax.device_get(trainer.state.step)))
        row = {
            "epoch": run.epoch,
            "step": run.step,
            **record,
            "time/train": time.monotonic() - started,
        }
        trainer.log_metrics({"epoch": run.epoch, **record}, run.step)
        with noting(f"{trainer.name}.on_training_epoch_end", run.where("train")):
            trainer.on_training_epoch_end(run.epoch)
        row |= run.logged | notify(trainer, run, "on_training_epoch_end", "train", record, row=row)
        run.logged.clear()
        if (
            run.epoch % trainer.check_val_every_n_epoch == 0
            or run.stop_reason
            or run.epoch == run.num_epochs
        ):
            row |= _validate(trainer, val_loader, record, row)
        run.history.append(row)
        history.append(_scalars(row))
        set_metrics(bar, _shown(row))
        if run.stop_reason:
            break
    if run.stop_reason:
        trainer.progress.note(
            f"Stopped after epoch {run.epoch}, step {run.step}: {run.stop_reason}"
        )


def run_epoch(trainer: "TrainerModule", train_loader: Any) -> ScalarMetrics:
    """One pass over the loader; returns the means over the epoch, named ``train/...``."""
    run = _running(trainer)
    run.epoch += not run.is_active  # called by hand
    source = _train_source(trainer, run, train_loader)
    limit = run.steps_in_epoch(source.num_batches)
    steps, callbacks = trainer.steps, overriding(trainer.callbacks, "on_step_end")
    interval: Metrics | None = None  # accumulated since the last record
    epoch: Metrics | None = None  # accumulated up to the last record
    stream = prefetch_to_device(
        islice(source.epoch(run.epoch), limit),
        depth=trainer.loop.prefetch,
        copy=not source.owns_batches,
    )
    bar = trainer.tracker(stream, desc="Training", total=limit, leave=False)
    with _noting_step(run):
        for batch, run.cursor, count in bar:
            if interval is None:
                interval = steps.empty_train(trainer.state, batch)
            trainer.state, interval = steps.train(trainer.state, interval, batch)
            run.step += 1
            advance_examples(bar, count)
            for callback in callbacks:
                if run.step % callback.every == 0:
                    notify(trainer, run, "on_step_end", "train", only=callback)
            if run.step % trainer.loop.log_every == 0:
                epoch = interval if epoch is None else steps.merge(epoch, interval)
                _record(trainer, run, bar, interval)
                interval = None
            if run.should_stop():
                break
    if interval is not None:
        epoch = interval if epoch is None else steps.merge(epoch, interval)
    if epoch is None:
        raise TrainingError(
            f"Received no batch for epoch {run.epoch}; expected at least one step before the stop."
        )
    return compute(epoch, "train/")


def _record(trainer: "TrainerModule", run: Run, bar: Any, metrics: Metrics) -> None:
    """Makes a record of the steps since the last one; here the host waits for the device."""
    values = compute(metrics, "train/step/")
    run.logged |= notify(trainer, run, "on_log", "train", values)
    trainer.log_metrics(values | run.logged, run.step)
    set_metrics(
        bar, {name.removeprefix("train/step/"): value for name, value in _scalars(values).items()}
    )


def _validate(
    trainer: "TrainerModule", val_loader: Any, record: ScalarMetrics, row: dict[str, Any]
) -> ScalarMetrics:
    run = _running(trainer)
    if val_loader is None:  # nothing to compare by: the newest model is the one to keep
        run.best = dict(record)
        trainer.save_model(run.step)
        return {}
    with noting(f"{trainer.name}.eval_model", run.where("val")):
        metrics = trainer.eval_model(val_loader, log_prefix="val/")
    with noting(f"{trainer.name}.on_validation_epoch_end", run.where("val")):
        trainer.on_validation_epoch_end(run.epoch, metrics, val_loader)
    metrics = {name: to_host(value) for name, value in metrics.items()}
    metrics |= notify(trainer, run, "on_validation_epoch_end", "val", metrics, row=row | metrics)
    trainer.log_metrics(metrics, run.step)
    trainer.save_metrics(f"eval_epoch_{run.epoch:03d}", metrics)
    with noting(f"{trainer.name}.is_new_model_better", run.where("val")):
        is_better = bool(trainer.is_new_model_better(metrics, run.best))
    if is_better:
        run.best = {**metrics, **record}
        trainer.save_model(run.step)
        trainer.save_metrics("best_eval", run.best)
    return metrics


def _test(trainer: "TrainerModule", test_loader: Any) -> ScalarMetrics:
    run = _running(trainer)
    if run.best is None:
        trainer.progress.note(
            "No validation was finite, so there is no best model: the test uses the last one."
        )
    else:
        trainer.load_model()
    with noting(f"{trainer.name}.eval_model", run.where("test")):
        metrics = trainer.eval_model(test_loader, log_prefix="test/")
    trainer.log_metrics(metrics, run.step)
    trainer.save_metrics("test", metrics)
    notify(trainer, run, "on_test_end", "test", metrics)
    return metrics


def _say_where(trainer: "TrainerModule") -> None:
    folder = Path(trainer.log_dir)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    trainer.progress.note(f"{trainer.name} trains in {shown}")
    if trainer.is_loaded and RunDirectory(trainer.log_dir).history.exists():
        logging.getLogger("boltax").warning(
            "%s goes on in the folder that it was loaded from: its history and best model will be "
            "replaced. load_from_checkpoint(folder, logger_params={...}) gives it a new one.",
            trainer.name,
        )


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


def _is_pruned(error: BaseException) -> bool:
    return type(error).__name__ == "TrialPruned"


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _shown(row: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch's row the progress bar has room for: validation first."""
    numbers = _scalars(row)
    return {n: numbers[n] for phase in ("val/", "train/") for n in numbers if n.startswith(phase)}


def _on_device_int(step: Any) -> jax.Array:
    return jax.device_put(jax.numpy.asarray(step, jax.numpy.int32))
