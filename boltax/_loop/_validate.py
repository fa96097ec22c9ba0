"""The validation of a single run, and its test: hooks are told, the best model is kept."""

import logging
from collections.abc import Mapping
from typing import Any

from boltax._base._evaluation import Evaluation, evaluations_of, prefix_of
from boltax._base._metric_values import check_metric_values
from boltax._base._types import Loader, ScalarMetrics
from boltax._loop._notify import hook, joined, log, notify, tell_optimizer
from boltax._loop._one import One
from boltax._loop._saving import save_further, unwritten_best
from boltax._step._ema import evaluated
from boltax._step._state import variables_of
from boltax.checkpoint._best import Kept, rank
from boltax.errors import MetricsError, NonFiniteError, noting
from boltax.metrics._accumulate import to_host

_log = logging.getLogger("boltax")


def validate(one: One, val_loader: Loader) -> None:
    """Validates, tells hooks, loggers and the optimizer, and saves the model if it is the best."""
    run, hooks, record = one.run, one.hooks, one.run.counters.record
    # the device looks at the state beside the evaluation
    run.state_watch.ask(one.live.state)
    if val_loader is None:  # but for a monitor of training there is nothing to compare by
        monitor = one.parts.monitor
        is_compared = monitor is not None and monitor[0].startswith("train/")
        _tell_nonfinite(one)
        if not is_compared or hooks.is_new_model_better(record, run.best):
            _keep(one, dict(record))
        return
    metrics = _evaluated(one)
    # before anything is kept of a model that is useless
    _tell_nonfinite(one)
    # the hooks come before the record, so that what they add is logged with it
    with hook(one, "on_validation_epoch_end", "val"):
        hooks.on_validation_epoch_end(run.epoch, metrics, val_loader)
    check_metric_values(metrics, f"{one.parts.name}.on_validation_epoch_end or eval_model")
    metrics = {name: to_host(value) for name, value in metrics.items()}
    row = joined(run.counters.row, metrics)
    metrics |= notify(one, "on_validation_epoch_end", "val", metrics, row=row)
    log(one, metrics)
    tell_optimizer(one, metrics)
    is_by_step = run.validations.is_by_step
    name = f"eval_step_{run.step:08d}" if is_by_step else f"eval_epoch_{run.epoch:03d}"
    hooks.save_metrics(name, metrics)
    run.count(row=joined(run.counters.row, metrics))
    if not _is_comparable(one, metrics):
        return
    new, keep = Kept(run.step, {**metrics, **record}), one.parts.checkpoint.keep_best
    with hook(one, "is_new_model_better", "val"):
        ranking = rank(new, run.best, run.clock.kept, hooks.is_new_model_better, keep)
    if ranking.is_best:
        _keep(one, new.metrics)
    elif ranking.is_kept:
        variables = variables_of(evaluated(one.live.state))
        save_further(one.parts, run, variables, ranking.kept, run.step)


def _evaluated(one: One) -> ScalarMetrics:
    """The metrics of all evaluations that take part."""
    run, hooks, metrics = one.run, one.hooks, ScalarMetrics()
    for name in run.validations.due:
        evaluation, prefix = run.validations.evaluations[name], prefix_of("val", name)
        if evaluation.function is not None:
            with run.ledger.spent("evaluation"):
                metrics |= computed(evaluation, hooks, prefix, run.where("val"))
            continue
        where = noting(f"{one.parts.name}.eval_model", run.where("val"))
        with run.ledger.spent("evaluation"), where:
            metrics |= hooks.eval_model(evaluation.loader, log_prefix=prefix)
    return metrics


def computed(evaluation: Evaluation, trainer: Any, prefix: str, where: str) -> ScalarMetrics:
    """The metrics of an evaluation that is a function of the user's.

    Args:
        evaluation: has the function.
        trainer: with the state that is evaluated.
        prefix: put before each name.
        where: the moment, for notes.

    Raises:
        MetricsError: when it returned something else than metrics by name.
    """
    function: Any = evaluation.function
    name = f"the function of the evaluation {prefix.split('/')[1]!r}"
    with noting(name, where):
        found: Any = function(trainer, evaluation.loader)
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise MetricsError(
            f"Received {found!r} ({type(found).__name__}) from {name}; expected metrics by name. "
            'Write return {"fid": value}.'
        )
    metrics = {prefix + key: value for key, value in found.items()}
    check_metric_values(metrics, name)
    return {key: to_host(value) for key, value in metrics.items()}


def _is_comparable(one: One, metrics: ScalarMetrics) -> bool:
    """Whether what tells the best model is among the metrics of the evaluations that took part."""
    validations, monitor = one.run.validations, one.parts.monitor
    if monitor is not None and monitor[0].startswith("train/"):
        return validations.is_main_due and one.run.step > 0
    if validations.is_complete:
        return True  # and where it is not, that is an error
    if monitor is None or one.parts.overrides("is_new_model_better"):
        return validations.is_main_due
    return monitor[0] in metrics


def _tell_nonfinite(one: One) -> None:
    """Tells of variables that are not finite; where that ends the run, the state is not saved."""
    run, is_end = one.run, one.parts.loop.on_nonfinite == "stop"
    best = run.clock.kept[-1].step if run.clock.kept else None
    try:
        with run.ledger.spent("evaluation"):
            run.state_watch.tell(run.where("val"), is_end=is_end, best=best)
    except NonFiniteError:
        run.is_saveable = False
        raise


def _keep(one: One, best: ScalarMetrics) -> None:
    """Saves the model as the best, with these metrics, which `save_model` finds in the run."""
    one.run.count(best=best)
    one.hooks.save_model(one.run.step)
    one.hooks.save_metrics("best_eval", best)


def test(one: One, test_loader: Loader) -> ScalarMetrics:
    """The metrics of the best model on the test set."""
    run, hooks = one.run, one.hooks
    if run.best is None:
        one.parts.progress.note(
            "No validation was finite, so there is no best model: the test uses the last one."
        )
    elif unwritten := unwritten_best(one.parts):
        _log.warning("%s could not be written: the test uses the last model instead.", unwritten)
    else:
        hooks.load_model()
    metrics = ScalarMetrics()
    for name, evaluation in evaluations_of(test_loader, "test_loader").items():
        prefix = prefix_of("test", name)
        if evaluation.function is not None:
            metrics |= computed(evaluation, hooks, prefix, run.where("test"))
            continue
        with noting(f"{one.parts.name}.eval_model", run.where("test")):
            metrics |= hooks.eval_model(evaluation.loader, log_prefix=prefix)
    hooks.log_metrics(metrics, run.step)
    hooks.save_metrics("test", metrics)
    notify(one, "on_test_end", "test", metrics)
    return metrics
