"""Records: the metrics of the steps since the last one, handed to callbacks and loggers.

Where no callback has to see the state of that very step, a record is written when the device has
come to it, which may be some steps later: the host sends off the next ones meanwhile. A compiled
loop of steps ends the intervals of its records by itself.
"""

import time
from collections.abc import Mapping
from typing import Any

from boltax._base._types import ScalarMetrics
from boltax._loop._accumulators import Accumulators, Due
from boltax._loop._layers import RECORD
from boltax._loop._trainees import Trainees, Watch
from boltax._progress._progress import set_metrics
from boltax._step._flops import peak_of
from boltax._step._forms import Ended
from boltax._step._layers import PREFIX
from boltax.metrics._accumulate import Metrics, rebuilt
from boltax.parallel._placement import Placement

MOST_DUE = 2
"""Dispatches whose records may wait for the device; with one more the host waits, too."""


def begin_record(trainees: Trainees) -> None:
    """Ends the interval of a record at this step; `write_records` writes it."""
    run, metrics = trainees.run, trainees.run.metrics
    interval, before = _pairs(trainees)
    turned = [
        trainees.steps_of(index).turn(old, new)
        for index, (old, new) in enumerate(zip(before, interval, strict=True))
    ]
    metrics.epoch = [whole for whole, _, _ in turned]
    metrics.interval = [following for _, following, _ in turned]
    metrics.due.append(Due([run.step], [metrics.examples], [packed for _, _, packed in turned]))


def begin_records(trainees: Trainees, steps: list[int], size: int, ended: Ended) -> None:
    """Takes over records whose intervals ended in the loop of a single state.

    Args:
        trainees: what is trained, at the last step of the loop.
        steps: the steps of the records, if all were finite.
        size: examples in a step.
        ended: their intervals.
    """
    run, metrics = trainees.run, trainees.run.metrics
    _, (before,) = _pairs(trainees)
    whole, packed = trainees.steps.add_ended(before, ended.number, ended.metrics)
    metrics.epoch = [whole]
    examples = [metrics.examples - size * (run.step - step) for step in steps]
    metrics.due.append(Due(steps, examples, [packed]))


def merge_records(trainees: Trainees) -> list[Metrics | Any]:
    """The metrics of the epoch up to the last step, for each state."""
    interval, before = _pairs(trainees)
    return [
        new if old is None else trainees.steps_of(index).merge(old, new)
        for index, (old, new) in enumerate(zip(before, interval, strict=True))
    ]


def _pairs(trainees: Trainees) -> tuple[list[Any], list[Any]]:
    """Of each state the metrics of the interval, and those of the epoch before it."""
    metrics = trainees.run.metrics
    interval: Any = metrics.interval
    if metrics.epoch is None:
        return interval, [None] * len(interval)
    pairs = enumerate(zip(metrics.epoch, interval, strict=True))
    return interval, [
        rebuilt(old, new, trainees.steps_of(index).placement) for index, (old, new) in pairs
    ]


def write_records(trainees: Trainees, watch: Watch, bar: Any, *, most_due: int = 0) -> None:
    """Writes the records that have arrived, and waits for those that are too many.

    Args:
        trainees: what is trained.
        watch: is asked first whether a step up to the record was not finite.
        bar: shows the newest values.
        most_due: so many need not have arrived.
    """
    due, is_alone = trainees.run.metrics.due, trainees.run.agreement is None
    while due and (len(due) > most_due or (is_alone and due[0].is_here())):
        _write(trainees, watch, bar)


def _write(trainees: Trainees, watch: Watch, bar: Any) -> None:
    run, metrics = trainees.run, trainees.run.metrics
    watch.look(up_to=metrics.due[0].steps[-1])
    with run.ledger.spent("device"):
        rows = trainees.unpack(metrics.due[0])
    due = metrics.due.popleft()
    steps = trainees.steps
    last = due.steps[-1], due.examples[-1]
    speed = _speed(metrics, *last, steps.train.flops, steps.placement)
    values: ScalarMetrics = {}
    for step, row in zip(due.steps, rows, strict=False):  # rows of no record come last
        values = trainees.on_record(step, row, speed)
    shown = {
        name.removeprefix(RECORD): value
        for name, value in scalars(values).items()
        if PREFIX not in name  # too many for a line
    }
    set_metrics(bar, shown)


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among metrics."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _speed(
    metrics: Accumulators, step: int, examples: int, flops: int | None, placement: Placement
) -> ScalarMetrics:
    """The speed since the last record; nothing at the first, which holds compiling.

    Args:
        metrics: know when the last record was.
        step: the step of the last of the records that have arrived.
        examples: examples up to it.
        flops: floating point operations of a step, if known.
        placement: on which devices.
    """
    now, before = time.perf_counter(), metrics.told_at
    metrics.told_at = now, step, examples
    if before is None or step <= before[1]:
        return {}
    seconds = now - before[0]
    speed: ScalarMetrics = {
        "speed/steps_per_second": (step - before[1]) / seconds,
        "speed/examples_per_second": (examples - before[2]) / seconds,
    }
    if flops:
        speed["speed/flops_per_second"] = flops * speed["speed/steps_per_second"]
        if (peak := peak_of(placement.device)) is not None:
            speed["speed/mfu"] = speed["speed/flops_per_second"] / (peak * placement.num_devices)
    return speed
