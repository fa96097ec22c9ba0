"""Which of two validations is better."""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from boltax.errors import ConfigurationError, MetricsError

Monitor = tuple[str, str]
"""A metric's name, and ``"min"`` or ``"max"``."""

GUIDE_ORDER: Sequence[Monitor] = (
    ("val/val_metric", "min"),
    ("val/acc", "max"),
    ("val/loss", "min"),
)
"""What decides without a monitor: the first of these that exists, as in the guide."""


def is_better(
    monitors: Sequence[Monitor], new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> bool:
    """Whether `new` is better than `old` by the first monitor that exists. NaN is never better.

    Raises:
        MetricsError: when none of them exists.
    """
    known = [monitor for monitor in monitors if monitor[0] in new]
    if not known:
        check_monitor(monitors[0], new)
    name, mode = known[0]
    value = float(new[name])
    if math.isnan(value):
        return False
    if old is None or math.isnan(best := float(old.get(name, math.nan))):
        return True
    return value > best if mode == "max" else value < best


def check_monitor(monitor: Monitor, metrics: Collection[str]) -> None:
    """Refuses a monitor that is not among the metrics."""
    name, mode = monitor
    if name not in metrics:
        names = sorted(metrics)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0) or ["..."]
        raise MetricsError(
            f"Received monitor {name!r}, which is not among the metrics; expected one of: "
            f"{', '.join(names)}. Write monitor=({near[0]!r}, {mode!r}), or return that metric "
            "from the evaluation."
        )


def check_form(monitor: Any) -> None:
    """Refuses what is not a metric's name with a direction."""
    is_pair = isinstance(monitor, tuple | list) and len(monitor) == 2
    if monitor is not None and not (
        is_pair and isinstance(monitor[0], str) and monitor[1] in ("min", "max")
    ):
        raise ConfigurationError(
            f"Received monitor={monitor!r}; expected a metric and a direction, e.g. ('val/acc', "
            "'max')."
        )
