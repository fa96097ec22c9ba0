"""Records: the metrics of the steps since the last one, handed to callbacks and loggers.

Where no callback has to see the state of that very step, a record is written when the next steps
are on their way: the device goes on while the host reads and logs.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from boltax._flops import peak_of
from boltax._nonfinite import NonFiniteWatch
from boltax._notify import notify
from boltax._progress._progress import set_metrics
from boltax._run import Run
from boltax._types import ScalarMetrics
from boltax.callbacks._base import overriding
from boltax.metrics._accumulate import Metrics, compute, rebuilt

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def begin_record(trainer: "TrainerModule", run: Run) -> None:
    """Ends the interval of a record at this step; `finish_record` writes it."""
    interval: Any = run.interval
    run.record_due = run.step, run.examples, interval, run.accumulated
    run.accumulated, run.interval = merged(trainer, run), trainer.steps.next_metrics(interval)


def must_finish_now(trainer: "TrainerModule") -> bool:
    """Whether a callback may look at the state with the record."""
    return bool(overriding(trainer.callbacks, "on_log"))


def finish_record(trainer: "TrainerModule", run: Run, watch: NonFiniteWatch, bar: Any) -> None:
    """Writes the record that is due, if any; here the host waits for the device, up to its step."""
    if run.record_due is None:
        return
    step, examples, interval, _ = run.record_due
    with run.ledger.spent("device"):
        watch.look(up_to=step)
        values = compute(interval, "train/step/")
    run.record_due = None
    run.logged |= notify(trainer, run, "on_log", "train", values)
    speed = _speed(run, step, examples, trainer.steps.train.flops)
    log(trainer, run, values | run.logged | speed, step)
    shown = {name.removeprefix("train/step/"): value for name, value in scalars(values).items()}
    set_metrics(bar, shown)


def log(trainer: "TrainerModule", run: Run, metrics: Mapping[str, Any], step: int) -> None:
    """Hands metrics to the loggers."""
    with run.ledger.spent("logging"):
        trainer.log_metrics(metrics, step)


def merged(trainer: "TrainerModule", run: Run) -> Metrics:
    """The metrics of the epoch, up to the last step."""
    interval: Any = run.interval
    if run.accumulated is None:
        return interval
    return trainer.steps.merge(rebuilt(run.accumulated, like=interval), interval)


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among metrics."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _speed(run: Run, step: int, examples: int, flops: int | None) -> ScalarMetrics:
    """The speed since the last record; nothing at the first, which holds compiling.

    Args:
        run: the run.
        step: the step of the record.
        examples: examples up to it.
        flops: floating point operations of a step, if known.
    """
    now, before = time.perf_counter(), run.told_at
    run.told_at = now, step, examples
    if before is None or step <= before[1]:
        return {}
    seconds = now - before[0]
    speed: ScalarMetrics = {
        "speed/steps_per_second": (step - before[1]) / seconds,
        "speed/examples_per_second": (examples - before[2]) / seconds,
    }
    if flops:
        speed["speed/flops_per_second"] = flops * speed["speed/steps_per_second"]
        if (peak := peak_of(jax.local_devices()[0])) is not None:
            speed["speed/mfu"] = speed["speed/flops_per_second"] / peak
    return speed
