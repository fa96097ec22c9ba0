"""Stops a run whose metric no longer gets better. Keeps nothing: the history has all it needs."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from boltax._base._monitor import Followed, direction_of, missing
from boltax._base._whole import is_whole
from boltax.callbacks._base import Callback, Stop, View
from boltax.errors import ConfigurationError, MetricsError, unknown_name

MODES = ("min", "max")


class EarlyStopping(Callback):
    """Stops when a metric has not improved for several validations.

    Its decision is a function of `view.history` alone, so a resumed run stops where the
    uninterrupted one does. A metric of the training set is looked at after each epoch, any other
    after each validation.

    Args:
        monitor: the metric, e.g. ``"val/loss"``; None for the trainer's monitor.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is; None tells it from the
            metric's name, or takes it from the trainer's monitor.
        patience: validations without improvement after which to stop.
        min_delta: an improvement is a change for the better by more than this.
        check_finite: whether to stop at once when the metric is NaN or infinite.

    Raises:
        ConfigurationError: when the mode cannot be told from the name, or an argument makes no
            sense.
        MetricsError: when the monitor is not among the metrics: before the first step where their
            names are known by then.

    Example:
        >>> EarlyStopping("val/acc", patience=5)
        EarlyStopping('val/acc', mode='max', patience=5, min_delta=0.0, check_finite=True)
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: str | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        check_finite: bool = True,
    ) -> None:
        if monitor is not None and (not isinstance(monitor, str) or not monitor):
            raise ConfigurationError(
                f"Received EarlyStopping(monitor={monitor!r}); expected the name of a metric, or "
                "None for the trainer's monitor. Write EarlyStopping('val/loss')."
            )
        if not is_whole(patience, 1):
            raise ConfigurationError(
                f"Received EarlyStopping(patience={patience!r}); expected a whole number of at "
                "least 1, the validations without improvement after which to stop. Write "
                "patience=3."
            )
        if not isinstance(min_delta, Real) or not 0 <= min_delta < math.inf:
            raise ConfigurationError(
                f"Received EarlyStopping(min_delta={min_delta!r}); expected a number of at least "
                "0, the least change that counts as an improvement in either mode. Write "
                "min_delta=0.001."
            )
        if mode is not None and mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.monitor = monitor
        self.mode = mode or (None if monitor is None else _mode_of(monitor))
        self.patience = int(patience)
        self.min_delta = float(min_delta)
        self.check_finite = check_finite

    def __repr__(self) -> str:
        return (
            f"EarlyStopping({self.monitor!r}, mode={self.mode!r}, patience={self.patience}, "
            f"min_delta={self.min_delta}, check_finite={self.check_finite})"
        )

    def on_training_start(self, view: View) -> None:
        """Refuses to begin where nothing says what to follow."""
        self._followed(view)

    def on_training_epoch_end(self, view: View) -> Stop | None:
        """Decides for a metric of the training set."""
        name, mode = self._followed(view)
        return self._decide(view, name, mode) if name.startswith("train/") else None

    def on_validation_epoch_end(self, view: View) -> Stop | None:
        """Decides for every other metric, and within an epoch for those of training, too."""
        name, mode = self._followed(view)
        is_decided = name.startswith("train/") and not (view.is_within_epoch and view.step)
        return None if is_decided else self._decide(view, name, mode)

    def _followed(self, view: View) -> tuple[str, str]:
        """The metric and its direction: its own, or those of the trainer's monitor."""
        if self.monitor is not None:
            return self.monitor, self.mode or _mode_of(self.monitor)
        if view.monitor is None:
            raise ConfigurationError(
                "Received EarlyStopping() without a monitor, in a trainer that has none either; "
                "expected a metric to follow. Write EarlyStopping('val/loss'), or "
                "monitor=('val/loss', 'min') for the trainer."
            )
        name, mode = view.monitor
        return name, self.mode or mode

    def _decide(self, view: View, name: str, mode: str) -> Stop | None:
        rows = _with_current(view)
        if name not in rows[-1] and not view.is_complete:
            return None  # its evaluation comes at other steps
        if name not in rows[-1]:
            raise missing(Followed(name, mode, "EarlyStopping", is_pair=False), rows[-1])
        values = [(row["epoch"], _number(name, row)) for row in rows if name in row]
        epoch, value = values[-1]
        if self.check_finite and not math.isfinite(value):
            return Stop(f"{name} is {value} in epoch {epoch}, which is not a finite number")
        best_epoch, best, waited = self._best(values, mode)
        if waited < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        checks = "check" if waited == 1 else f"{waited} checks"
        if best_epoch is None:
            return Stop(f"{name} has not been a finite number in the last {checks}")
        return Stop(
            f"{name} has not improved{by} in the last {checks}: it is {value:.4g} in epoch "
            f"{epoch}, and was best in epoch {best_epoch} with {best:.4g}"
        )

    def _best(
        self, values: Sequence[tuple[int, float]], mode: str
    ) -> tuple[int | None, float, int]:
        """The best value, its epoch (None if no value was finite), and the checks since then."""
        sign = 1.0 if mode == "min" else -1.0
        best_epoch, best, waited = None, sign * math.inf, 0
        for epoch, value in values:
            if math.isfinite(value) and sign * value < sign * best - self.min_delta:
                best_epoch, best, waited = epoch, value, 0
            else:
                waited += 1
        return best_epoch, best, waited


def _number(name: str, row: Mapping[str, Any]) -> float:
    value = np.asarray(row[name])
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise MetricsError(
            f"Received {name} as {value.dtype} of shape {value.shape}; EarlyStopping expected one "
            "number. Monitor another metric, or return a scalar."
        )
    return float(value.item())


def _mode_of(monitor: str) -> str:
    mode = direction_of(monitor)
    if mode is None:
        raise ConfigurationError(
            f"Received monitor {monitor!r}, whose name does not tell whether smaller or larger is "
            f"better; expected mode='min' or mode='max'. Write EarlyStopping({monitor!r}, "
            "mode='max')."
        )
    return mode


def _with_current(view: View) -> list[Mapping[str, Any]]:
    """The history with the metrics of this moment in the running row."""

    def is_running(row: Mapping[str, Any]) -> bool:
        return row["epoch"] == view.epoch and row.get("step", view.step) == view.step

    past = [row for row in view.history if not is_running(row)]
    running = [row for row in view.history if is_running(row)]
    current: dict[str, Any] = {"epoch": view.epoch, "step": view.step}
    for row in (*running, view.metrics):
        current.update(row)
    return [*past, current]
