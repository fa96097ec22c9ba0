"""What records say of the layers of a model, on the host; see `boltax._step._layers`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from boltax._base._types import ScalarMetrics
from boltax._step._layers import BINS, HISTOGRAMS, PREFIX
from boltax.loggers._group import LoggerGroup
from boltax.loggers._values import Histogram
from boltax.metrics._accumulate import Metrics
from boltax.metrics._places import total_at

RECORD = "train/step/"
"""The prefix of the metrics of a record."""


def of_layers_seen(metrics: Metrics, values: ScalarMetrics, *, is_record: bool) -> ScalarMetrics:
    """The values without those of layers that none of the steps has looked at.

    Args:
        metrics: as accumulated.
        values: theirs.
        is_record: whether they are those of a record; an epoch has no step of which to tell.
    """
    if not any(name.startswith(PREFIX) for name in values):
        return values
    unseen = [
        place.name
        for place in metrics.places
        if place.name.startswith(PREFIX)
        if not is_record or _is_empty(place, metrics)
    ]
    return {name: value for name, value in values.items() if name not in unseen}


def _is_empty(place: Any, metrics: Metrics) -> bool:
    return place.number is not None and not total_at(place.number, metrics.sums).value()


def log_histograms(
    logger: LoggerGroup, values: Mapping[str, Any], step: int, member: int | None = None
) -> ScalarMetrics:
    """Hands the histograms among the values of a record to the loggers; returns the others.

    Args:
        logger: of the run.
        values: of the record, with the prefix of their names.
        step: of the record.
        member: of a population whose they are.
    """
    prefix = "" if member is None else f"member_{member:03d}/"
    found = {name: value for name, value in values.items() if HISTOGRAMS in name}
    for name, value in found.items():
        if (histogram := as_histogram(value)) is not None:
            logger.log_histogram(prefix + name.replace(HISTOGRAMS, PREFIX, 1), histogram, step)
    return {name: value for name, value in values.items() if name not in found}


def as_histogram(value: Any) -> Histogram | None:
    """A histogram out of its numbers on the device; None where no value was finite."""
    counts, (low, high, total, squares) = np.asarray(value)[:BINS], np.asarray(value)[BINS:]
    if not counts.any():
        return None
    begin, end = (low, high) if low < high else (low - 0.5, high + 0.5)
    edges = np.linspace(begin, end, BINS + 1)
    return Histogram(
        counts.astype(np.int64), edges, float(low), float(high), float(total), float(squares)
    )
