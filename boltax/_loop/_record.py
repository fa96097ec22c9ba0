"""Records: the metrics of the steps since the last one, handed to callbacks and loggers.

Where no callback has to see the state of that very step, a record is written when the device has
come to it, which may be some steps later: the host sends off the next ones meanwhile. A compiled
loop of steps ends the intervals of its records by itself.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from boltax._base._types import ScalarMetrics
from boltax._loop._nonfinite import NonFiniteWatch
from boltax._loop._notify import notify
from boltax._loop._run import Due, Run
from boltax._progress._progress import set_metrics
from boltax._step._flops import peak_of
from boltax._step._forms import Ended
from boltax.callbacks._base import overriding
from boltax.metrics._accumulate import Metrics, compute, rebuilt, unpack

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


MOST_DUE = 2
"""Dispatches whose records may wait for the device; with one more the host waits, too."""


def begin_record(trainer: "TrainerModule", run: Run) -> None:
    """Ends the interval of a record at this step; `write_records` writes it."""
    interval: Any = run.interval
    run.accumulated, run.interval, packed = trainer._made.steps.turn(_accumulated(run), interval)
    run.records_due.append(Due([run.step], [run.examples], packed))


def begin_records(
    trainer: "TrainerModule", run: Run, steps: list[int], size: int, ended: Ended
) -> None:
    """Takes over records whose intervals ended in a loop.

    Args:
        trainer: whose they are.
        run: its run, at the last step of the loop.
        steps: the steps of the records, if all were finite.
        size: examples in a step.
        ended: their intervals.
    """
    before = _accumulated(run)
    run.accumulated, packed = trainer._made.steps.add_ended(before, ended.number, ended.metrics)
    examples = [run.examples - size * (run.step - step) for step in steps]
    run.records_due.append(Due(steps, examples, packed))


def _accumulated(run: Run) -> Metrics | None:
    like: Any = run.interval
    return None if run.accumulated is None else rebuilt(run.accumulated, like=like)


def must_write_at_once(trainer: "TrainerModule") -> bool:
    """Whether a callback may look at the state with the record."""
    return bool(overriding(trainer.callbacks, "on_log"))


def write_records(
    trainer: "TrainerModule", run: Run, watch: NonFiniteWatch, bar: Any, *, most_due: int = 0
) -> None:
    """Writes the records that have arrived, and waits for those that are too many.

    Args:
        trainer: whose they are.
        run: its run.
        watch: is asked first whether a step up to the record was not finite.
        bar: shows the newest values.
        most_due: so many need not have arrived.
    """
    while run.records_due and (len(run.records_due) > most_due or run.records_due[0].is_here()):
        _write(trainer, run, watch, bar)


def _write(trainer: "TrainerModule", run: Run, watch: NonFiniteWatch, bar: Any) -> None:
    like: Any = run.interval
    watch.look(up_to=run.records_due[0].steps[-1])
    with run.ledger.spent("device"):
        rows = unpack(run.records_due[0].packed, like=like)
    due = run.records_due.popleft()
    speed = _speed(run, due.steps[-1], due.examples[-1], trainer._made.steps.train.flops)
    values: ScalarMetrics = {}
    for step, row in zip(due.steps, rows, strict=False):  # rows of no record come last
        values = compute(row, "train/step/")
        run.logged |= notify(trainer, run, "on_log", "train", values)
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
    before = _accumulated(run)
    return interval if before is None else trainer._made.steps.merge(before, interval)


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among metrics."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _speed(run: Run, step: int, examples: int, flops: int | None) -> ScalarMetrics:
    """The speed since the last record; nothing at the first, which holds compiling.

    Args:
        run: the run.
        step: the step of the last of the records that have arrived.
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
