"""Tells callbacks what happens, and does what they ask for; tells the optimizer of validations."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from boltax._base._types import ScalarMetrics
from boltax._loop._run import Run
from boltax._step._state import evaluations_of
from boltax.callbacks._base import Callback, Log, Save, Stop, View, as_requests, overriding
from boltax.errors import noting
from boltax.metrics._accumulate import to_host
from boltax.optim._plateau import next_evaluations

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


JOINS_A_RECORD = ("on_log", "on_validation_epoch_end")
"""Hooks before a record is logged: what callbacks log there goes with it."""


def notify(
    trainer: "TrainerModule",
    run: Run,
    hook: str,
    phase: str,
    metrics: Mapping[str, Any] | None = None,
    *,
    row: Mapping[str, Any] | None = None,
    only: Callback | None = None,
    error: BaseException | None = None,
) -> ScalarMetrics:
    """Calls a hook of callbacks, does what they ask for, and returns the metrics they logged."""
    logged = ScalarMetrics()
    callbacks = overriding(trainer.callbacks, hook) if only is None else (only,)
    for callback in callbacks:
        view = _view(trainer, run, phase, metrics or {}, row)
        arguments = (view,) if error is None else (view, error)
        with (
            run.ledger.spent("hooks"),
            noting(f"callback {type(callback).__name__}.{hook}", run.where(phase)),
        ):
            answer = getattr(callback, hook)(*arguments)
        for request in as_requests(answer, callback, hook):
            match request:
                case Stop(reason):
                    run.ask_to_stop(f"{type(callback).__name__}: {reason}")
                case Save():
                    trainer.save_snapshot()
                case Log():
                    values = {name: to_host(value) for name, value in request.metrics.items()}
                    with run.ledger.spent("logging"):
                        if hook not in JOINS_A_RECORD:
                            trainer.log_metrics(values, run.step)
                        _log_media(trainer, request, run.step)
                    logged |= values
    return logged


def _view(
    trainer: "TrainerModule",
    run: Run,
    phase: str,
    metrics: Mapping[str, Any],
    row: Mapping[str, Any] | None,
) -> View:
    return View(
        phase=phase,
        epoch=run.epoch,
        step=run.step,
        num_epochs=run.num_epochs,
        total_steps=run.total_steps,
        state=trainer.state,
        metrics=dict(metrics),
        history=(*run.history, *([dict(row)] if row is not None else [])),
        elapsed=time.monotonic() - run.started,
        log_dir=trainer.log_dir,
        summary=lambda: trainer._made.summary,
        predict=trainer.predict_batch,
    )


def _log_media(trainer: "TrainerModule", request: Log, step: int) -> None:
    for key, images in request.images.items():
        trainer.logger.log_image(key, images, step)
    for key, figure in request.figures.items():
        trainer.logger.log_figure(key, figure, step)
    for key, values in request.histograms.items():
        trainer.logger.log_histogram(key, values, step)
    for key, text in request.text.items():
        trainer.logger.log_text(key, text, step)


def tell_optimizer(trainer: "TrainerModule", metrics: ScalarMetrics) -> None:
    """Puts what the optimizer follows of a validation into the state.

    Raises:
        MetricsError: when it is not among the metrics.
    """
    evaluations = evaluations_of(trainer.state)
    if evaluations is not None:
        evaluations = next_evaluations(evaluations, metrics)
        trainer.state = trainer.state.replace(evaluations=evaluations)
