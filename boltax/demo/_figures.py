"""The pictures that the demo writes: curves, confusion matrix, worst mistakes. No pyplot, so no global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltax._optional import import_optional

_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#3465a4", "#e8843c", "#3c8a4e", "#c03a38", "#6b7280"
_DOTS_PER_INCH = 150
_MISTAKE_COLUMNS, _MISTAKE_ROWS = 8, 3


def plot_curves(history_rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Loss, accuracy and learning rate by epoch, as a PNG file.

    Args:
        history_rows: one mapping for each epoch with ``epoch`` and any of ``train/loss``, ``val/loss``,
            ``train/acc``, ``val/acc``, ``lr``; a row may lack any of them but the epoch.
        path: the file to write.
    """
    figure = _figure(11.5, 3.5)
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, metric, title in ((loss, "loss", "Loss"), (accuracy, "acc", "Accuracy")):
        scale = 100.0 if metric == "acc" else 1.0
        for phase, color, name in (("train", _BLUE, "training"), ("val", _ORANGE, "validation")):
            epochs, values = _column(history_rows, f"{phase}/{metric}")
            axes.plot(epochs, scale * values, color=color, label=name, linewidth=1.8)
        _finish(axes, title)
        axes.legend(frameon=False)
    loss.set_yscale("log")
    loss.yaxis.set_major_formatter(_plain_numbers())
    loss.yaxis.set_minor_formatter(_plain_numbers(most_decades=1.5))
    accuracy.yaxis.set_major_formatter(import_optional_ticker().PercentFormatter(decimals=None))
    _mark_best(loss, accuracy, history_rows)
    epochs, values = _column(history_rows, "lr")
    rate.plot(epochs, values, color=_GREEN, linewidth=1.8)
    _finish(rate, "Learning rate")
    rate.set_ylim(bottom=0)
    _save(figure, path)
