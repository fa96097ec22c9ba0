"""The metrics of members as records: of each, of the best, and the mean; and rows of the table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from boltax._base._monitor import Monitor, is_better
from boltax._base._types import ScalarMetrics
from boltax._loop._record import scalars
from boltax.tune._members import Members
from boltax.tune._schedulers import Member


def record_epoch(members: Members) -> ScalarMetrics:
    """Hands the metrics of this pass to the loggers, and puts a row of each into the history."""
    run, trained = members.run, [members.members[number] for number in members.in_pass]
    rows = [{"member": m.number, "epoch": m.epoch, "step": m.step, **m.metrics} for m in trained]
    run.count(history=(*run.counters.history, *rows))
    record = {
        "epoch": run.epoch,
        "population/training": len(members.training),
        **record_of({member.number: member.metrics for member in trained}),
    }
    best = best_of(members.monitors, trained)
    if best is not None:
        record |= {f"best/{name}": value for name, value in scalars(best.metrics).items()}
        record["best/member"] = best.number
    with run.ledger.spent("logging"):
        members.hooks.log_metrics(record, run.step)
    return record


def record_of(metrics: Mapping[int, Mapping[str, Any]]) -> ScalarMetrics:
    """The metrics of members by name, and the means of those that are finite."""
    record: ScalarMetrics = {}
    numbers = {number: scalars(own) for number, own in metrics.items()}
    for number, own in numbers.items():
        record |= {f"member_{number:03d}/{name}": value for name, value in own.items()}
    for name in dict.fromkeys(name for own in numbers.values() for name in own):
        values = [own[name] for own in numbers.values() if name in own]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            record[f"mean/{name}"] = math.fsum(finite) / len(finite)
    return record


def shown(record: Mapping[str, Any]) -> ScalarMetrics:
    """What of a record the progress bar has room for: of the best member, else the means."""
    for prefix in ("best/", "mean/"):
        found = {n: v for n, v in scalars(record).items() if n.startswith(prefix)}
        if found:
            return found
    return {}


def best_of(monitors: Sequence[Monitor], members: Sequence[Member]) -> Member | None:
    """The member with the best metrics of its last epoch."""
    best: Member | None = None
    known = [m for m in members if any(name in m.metrics for name, _ in monitors)]
    for member in known:
        if is_better(monitors, member.metrics, None if best is None else best.metrics):
            best = member
    return best
