"""Stops a run whose metric no longer gets better. Keeps nothing: the history has all it needs."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boltax.callbacks._base import Callback, Stop, View
from boltax.errors import ConfigurationError, MetricsError, unknown_name

MODES = ("min", "max")
SMALLER_IS_BETTER = {
    *("loss", "nll", "perplexity", "ppl", "bpc", "bpd", "error", "err", "val_metric"),
    *("mae", "mape", "mse", "rmse", "cer", "wer", "fid", "regret"),
}
LARGER_IS_BETTER = {
    *("acc", "accuracy", "precision", "recall", "sensitivity", "specificity", "f1", "mcc", "kappa"),
    *("auc", "auroc", "auprc", "ap", "map", "iou", "miou", "dice", "r2", "psnr", "ssim"),
    *("bleu", "rouge", "elbo", "return", "reward"),
}


class EarlyStopping(Callback):
    """Stops when a metric has not improved for several validations.

    Its decision is a function of `view.history` alone, so a resumed run stops where the
    uninterrupted one does. A metric of the training set is looked at after each epoch, any other
    after each validation.

    Args:
        monitor: the metric, e.g. ``"val/loss"``.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is; None tells it from the
            metric's name.
        patience: validations without improvement after which to stop.
        min_delta: an improvement is a change for the better by more than this.
        check_finite: whether to stop at once when the metric is NaN or infinite.

    Raises:
        ConfigurationError: when the mode cannot be told from the name, or an argument makes no
            sense.
        MetricsError: in the run, when the monitor is not among the metrics.

    Example:
        >>> EarlyStopping("val/acc", patience=5)
        EarlyStopping('val/acc', mode='max', patience=5, min_delta=0.0, check_finite=True)
    """

    def __init__(
        self,
        monitor: str,
        mode: str | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        check_finite: bool = True,
    ) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise ConfigurationError(
                f"Received EarlyStopping(monitor={monitor!r}); expected the name of a metric. "
                "Write EarlyStopping('val/loss')."
            )
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ConfigurationError(
                f"Received EarlyStopping(patience={patience!r}); expected a whole number of at "
                "least 1, the validations without improvement after which to stop. Write "
                "patience=3."
            )
        if not isinstance(min_delta, int | float) or not 0 <= min_delta < math.inf:
            raise ConfigurationError(
                f"Received EarlyStopping(min_delta={min_delta!r}); expected a number of at least "
                "0, the least change that counts as an improvement in either mode. Write "
                "min_delta=0.001."
            )
        if mode is not None and mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.monitor = monitor
        self.mode = mode or _mode_of(monitor)
        self.patience = patience
        self.min_delta = float(min_delta)
        self.check_finite = check_finite

    def __repr__(self) -> str:
        return (
            f"EarlyStopping({self.monitor!r}, mode={self.mode!r}, patience={self.patience}, "
            f"min_delta={self.min_delta}, check_finite={self.check_finite})"
        )

    def on_training_epoch_end(self, view: View) -> Stop | None:
        """Decides for a metric of the training set."""
        return self._decide(view) if self.monitor.startswith("train/") else None

    def on_validation_epoch_end(self, view: View) -> Stop | None:
        """Decides for every other metric."""
        return None if self.monitor.startswith("train/") else self._decide(view)

    def _decide(self, view: View) -> Stop | None:
        rows = _with_current(view)
        values = [(row["epoch"], self._number(row)) for row in rows if self.monitor in row]
        if self.monitor not in rows[-1]:
            raise _missing(self.monitor, rows[-1])
        epoch, value = values[-1]
        if self.check_finite and not math.isfinite(value):
            return Stop(f"{self.monitor} is {value} in epoch {epoch}, which is not a finite number")
        best_epoch, best, waited = self._best(values)
        if waited < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        checks = "check" if waited == 1 else f"{waited} checks"
        if best_epoch is None:
            return Stop(f"{self.monitor} has not been a finite number in the last {checks}")
        return Stop(
            f"{self.monitor} has not improved{by} in the last {checks}: it is {value:.4g} in epoch "
            f"{epoch}, and was best in epoch {best_epoch} with {best:.4g}"
        )

    def _best(self, values: Sequence[tuple[int, float]]) -> tuple[int | None, float, int]:
        """The best value, its epoch (None if no value was finite), and the checks since then."""
        sign = 1.0 if self.mode == "min" else -1.0
        best_epoch, best, waited = None, sign * math.inf, 0
        for epoch, value in values:
            if math.isfinite(value) and sign * value < sign * best - self.min_delta:
                best_epoch, best, waited = epoch, value, 0
            else:
                waited += 1
        return best_epoch, best, waited

    def _number(self, row: Mapping[str, Any]) -> float:
        value = np.asarray(row[self.monitor])
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise MetricsError(
                f"Received {self.monitor} as {value.dtype} of shape {value.shape}; EarlyStopping "
                "expected one number. Monitor another metric, or return a scalar."
            )
        return float(value.item())


def _mode_of(monitor: str) -> str:
    name = monitor.rpartition("/")[2].lower()
    words = {name, *re.split(r"[^a-z0-9]+", name)}
    is_min, is_max = bool(words & SMALLER_IS_BETTER), bool(words & LARGER_IS_BETTER)
    if is_min == is_max:
        raise ConfigurationError(
            f"Received monitor {monitor!r}, whose name does not tell whether smaller or larger is "
            f"better; expected mode='min' or mode='max'. Write EarlyStopping({monitor!r}, "
            "mode='max')."
        )
    return "min" if is_min else "max"


def _with_current(view: View) -> list[Mapping[str, Any]]:
    """The history with the metrics of this moment in the row of the running epoch."""
    past = [row for row in view.history if row["epoch"] != view.epoch]
    running = [row for row in view.history if row["epoch"] == view.epoch]
    current: dict[str, Any] = {"epoch": view.epoch, "step": view.step}
    for row in (*running, view.metrics):
        current.update(row)
    return [*past, current]


def _missing(monitor: str, row: Mapping[str, Any]) -> MetricsError:
    names = sorted(name for name in row if name not in ("epoch", "step"))
    measured = [name for name in names if not name.startswith("time/")]
    near = difflib.get_close_matches(monitor.replace("_", "/", 1), measured, n=1, cutoff=0.0)
    return MetricsError(
        f"Received EarlyStopping(monitor={monitor!r}), which is not among the metrics; expected "
        f"one of: {', '.join(names) or 'none yet'}. Write "
        f"EarlyStopping({(near or ['val/loss'])[0]!r}), or return {monitor.rpartition('/')[2]!r} "
        "from the evaluation."
    )
