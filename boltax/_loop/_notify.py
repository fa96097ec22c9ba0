"""Tells callbacks what happens, and does what they ask for; tells the optimizer of validations."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from boltax._base._types import ScalarMetrics
from boltax._loop._counters import Stage
from boltax._loop._one import One
from boltax._step._state import evaluations_of
from boltax.callbacks._base import (
    Callback,
    Log,
    Save,
    Stop,
    View,
    as_requests,
    overriding,
    predict_of,
)
from boltax.errors import noting
from boltax.loggers._group import LoggerGroup
from boltax.metrics._accumulate import to_host
from boltax.optim._plateau import next_evaluations

JOINS_A_RECORD = ("on_log", "on_validation_epoch_end")
"""Hooks before a record is logged: what callbacks log there goes with it."""


def notify(
    one: One,
    moment: str,
    phase: str,
    metrics: Mapping[str, Any] | None = None,
    *,
    row: Mapping[str, Any] | None = None,
    only: Callback | None = None,
    error: BaseException | None = None,
) -> ScalarMetrics:
    """Calls a hook of callbacks, does what they ask for, and returns the metrics they logged.

    Each finds in its view what those before it have logged in this hook.
    """
    run, logged = one.run, ScalarMetrics()
    callbacks = overriding(one.parts.callbacks, moment) if only is None else (only,)
    if run.agreement is not None:
        run.agreement.was_told |= bool(callbacks)
    for callback in callbacks:
        known = {**(metrics or {}), **logged}
        view = _view(one, phase, known, None if row is None else joined(row, logged))
        arguments = (view,) if error is None else (view, error)
        with (
            run.ledger.spent("hooks"),
            noting(f"callback {type(callback).__name__}.{moment}", run.where(phase)),
        ):
            answer = getattr(callback, moment)(*arguments)
        for request in as_requests(answer, callback, moment):
            match request:
                case Stop(reason):
                    run.ask_to_stop(f"{type(callback).__name__}: {reason}")
                case Save():
                    one.hooks.save_snapshot()
                case Log():
                    values = {name: to_host(value) for name, value in request.metrics.items()}
                    if moment not in JOINS_A_RECORD:
                        log(one, values)
                    with run.ledger.spent("logging"):
                        _log_media(one.parts.logger, request, run.step)
                    logged |= values
    return logged


def joined(row: Mapping[str, Any], metrics: Mapping[str, Any]) -> ScalarMetrics:
    """An epoch's row of the history with further metrics; ``epoch`` and ``step`` stay its own."""
    return {**row, **metrics, **{name: row[name] for name in ("epoch", "step") if name in row}}


@contextmanager
def hook(one: One, name: str, phase: str) -> Generator[None]:
    """Around a method that a subclass may override: its time, and a note on its exceptions."""
    with one.run.ledger.spent("hooks"), noting(f"{one.parts.name}.{name}", one.run.where(phase)):
        yield


def log(one: One, metrics: Mapping[str, Any], step: int | None = None) -> None:
    """Hands metrics to the loggers, at the step of now or at another one."""
    with one.run.ledger.spent("logging"):
        one.hooks.log_metrics(metrics, one.run.step if step is None else step)


def _view(one: One, phase: str, metrics: Mapping[str, Any], row: Mapping[str, Any] | None) -> View:
    run, parts = one.run, one.parts
    return View(
        phase=phase,
        epoch=run.epoch,
        step=run.step,
        num_epochs=run.limits.num_epochs,
        total_steps=run.limits.total_steps,
        state=one.live.state,
        metrics=dict(metrics),
        history=(*run.counters.history, *([dict(row)] if row is not None else [])),
        elapsed=time.monotonic() - run.started,
        log_dir=parts.folder,
        summary=lambda: parts.summary,
        predict=predict_of(one.hooks.predict_batch),
        monitor=parts.monitor,
        is_complete=phase != "val" or run.validations.is_complete,
        is_within_epoch=phase == "val" and run.stage is not Stage.VALIDATE,
    )


def _log_media(logger: LoggerGroup, request: Log, step: int) -> None:
    for key, images in request.images.items():
        logger.log_image(key, images, step)
    for key, figure in request.figures.items():
        logger.log_figure(key, figure, step)
    for key, values in request.histograms.items():
        logger.log_histogram(key, values, step)
    for key, text in request.text.items():
        logger.log_text(key, text, step)


def tell_optimizer(one: One, metrics: ScalarMetrics) -> None:
    """Puts what the optimizer follows of a validation into the state.

    Raises:
        MetricsError: when it is not among the metrics.
    """
    evaluations = evaluations_of(one.live.state)
    if evaluations is not None and one.run.validations.has_all(evaluations.metrics, metrics):
        told = next_evaluations(evaluations, metrics)
        one.live.state = one.live.state.replace(evaluations=told)
