"""The pictures that the demo writes: curves, confusion matrix, worst mistakes.

No pyplot, so no global state, and no display is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltax._base._optional import import_optional
from boltax.errors import ConfigurationError

_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#2f6db3", "#e07b28", "#2f855a", "#c0392b", "#6b7280"
_DOTS_PER_INCH = 150
_COLUMNS, _ROWS = 6, 4
_EXPECTED_ROWS = "one mapping for each epoch, with its number as 'epoch'"


def plot_curves(history_rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes loss, accuracy and learning rate (where known) by epoch as a PNG file.

    The epoch of least validation loss is marked: its model is the one that is tested.

    Args:
        history_rows: a mapping for each epoch with ``epoch`` and any of ``train/loss``,
            ``val/loss``, ``train/acc``, ``val/acc`` and ``lr``; an epoch may lack some.
        path: the file to write.

    Raises:
        ConfigurationError: when there is no row.
    """
    if not history_rows:
        raise ConfigurationError(
            f"Received no rows to plot; expected {_EXPECTED_ROWS}. Train at least one epoch."
        )
    has_rate = any("lr" in row for row in history_rows)
    figure = _figure(12.0 if has_rate else 8.0, 3.6)
    loss, accuracy, *others = figure.subplots(1, 3 if has_rate else 2)
    _draw_phases(loss, history_rows, "loss")
    _draw_phases(accuracy, history_rows, "acc")
    _finish_curves(loss, "Loss", history_rows)
    loss.set_title("training: with smoothed labels", loc="right", fontsize=9, color=_GREY)
    _finish_curves(accuracy, "Accuracy", history_rows)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(*_accuracy_limits(history_rows))
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    accuracy.legend(loc="lower right", framealpha=1, edgecolor="none")
    for rate in others:
        rate.plot(*_column(history_rows, "lr"), ".-", color=_GREEN, linewidth=2)
        _finish_curves(rate, "Learning rate", history_rows)
        rate.set_ylim(bottom=0)
    _mark_best(loss, history_rows, "val/loss", has_text=True)
    _mark_best(accuracy, history_rows, "val/acc", has_text=False)
    _save(figure, path)


def plot_confusion(matrix: NDArray[Any], class_names: Sequence[str], path: str | Path) -> None:
    """Writes a confusion matrix as a PNG file: right answers in blue, wrong ones in red.

    The two have scales of their own, for on one scale the few mistakes would not be seen.

    Args:
        matrix: counts ``[true class, predicted class]``.
        class_names: the name of each class.
        path: the file to write.
    """
    side = 1.9 + 0.5 * len(class_names)
    figure = _figure(side, side)
    axes: Any = figure.subplots()
    axes.imshow(_confusion_colors(matrix), interpolation="nearest")
    is_dark = np.diag(np.diag(matrix) > 0.6 * matrix.sum(1).clip(1))
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if is_dark[row, column] else "#1f2937"
            axes.text(column, row, f"{count:g}", ha="center", va="center", color=color, fontsize=9)
    places = range(len(class_names))
    is_long = max(map(len, class_names)) > 2
    axes.set_xticks(
        places, class_names, rotation=45 if is_long else 0, ha="right" if is_long else "center"
    )
    axes.set_yticks(places, class_names)
    axes.set_xticks([place - 0.5 for place in places], minor=True)
    axes.set_yticks([place - 0.5 for place in places], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(
        f"{right:,} of {total:,} right ({right / max(total, 1):.2%})", fontsize=11, pad=10
    )
    _save(figure, path)


def plot_mistakes(
    images: NDArray[Any],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    path: str | Path,
) -> None:
    """Writes the worst predictions as a PNG file: where the true class got the least probability.

    Where there are fewer mistakes than places, right but hesitant answers follow, in green.

    Args:
        images: ``[examples, height, width, channels]``, 1 or 3 channels, uint8 or floats between
            0 and 1.
        labels: true classes ``[examples]``.
        probabilities: predicted ``[examples, classes]``.
        class_names: the name of each class.
        path: the file to write.
    """
    predicted = probabilities.argmax(-1)
    true_probability = np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=1)[
        :, 0
    ]
    is_wrong = predicted != labels
    worst = np.lexsort((true_probability, ~is_wrong))[: _COLUMNS * _ROWS]
    rows = -(-len(worst) // _COLUMNS)
    figure = _figure(1.8 * _COLUMNS, 1.95 * rows + 0.5)
    grid: NDArray[Any] = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, worst, strict=False):
        axes.imshow(images[index].squeeze(), cmap="gray_r", vmin=0, vmax=_white(images))
        true, answer = class_names[int(labels[index])], class_names[int(predicted[index])]
        text = f"true: {true}\npredicted: {answer}, {_percent(probabilities[index].max())}"
        axes.set_title(text, fontsize=9, color=_RED if is_wrong[index] else _GREEN, pad=4)
    figure.suptitle(_mistakes_title(int(is_wrong.sum()), len(labels), len(worst)), fontsize=11)
    _save(figure, path)


def _mistakes_title(wrong: int, total: int, shown: int) -> str:
    count = f"{wrong:,} mistake{'' if wrong == 1 else 's'} in {total:,} images"
    if wrong > shown:
        return f"{count}: the worst {shown}"
    return (
        count if wrong == shown else f"{count} (red), then the answers that were least sure (green)"
    )


def _white(images: NDArray[Any]) -> float:
    return 255.0 if images.dtype == np.uint8 else 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if 0.995 < share < 1 else f"{100 * share:.0f} %"


def _confusion_colors(matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Colours ``[true, predicted, 3]``: blue by the share of right answers, red by wrong counts."""
    colors = import_optional("matplotlib.colors", extra="demo", purpose="the figures of the demo")
    wrong = matrix * (1 - np.eye(len(matrix)))
    blues = colors.LinearSegmentedColormap.from_list("right", ["#f3f4f6", _BLUE])
    reds = colors.LinearSegmentedColormap.from_list("wrong", ["#fbd9d3", "#e2705f"])
    image = blues(np.diag(np.diag(matrix) / matrix.sum(1).clip(1)))[..., :3]
    is_wrong = wrong > 0
    image[is_wrong] = reds(wrong / max(wrong.max(), 1))[is_wrong][:, :3]
    return image


def _draw_phases(axes: Any, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    for phase, color, name in (
        ("train", _BLUE, "training (augmented)"),
        ("val", _ORANGE, "validation"),
    ):
        axes.plot(*_column(rows, f"{phase}/{metric}"), ".-", color=color, label=name, linewidth=2)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [row for row in rows if name in row]
    return [int(row["epoch"]) for row in found], [float(row[name]) for row in found]


def _accuracy_limits(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Limits that show the differences between good models: the first, bad epochs may lie below."""
    values = _column(rows, "train/acc")[1] + _column(rows, "val/acc")[1] or [0.0]
    lowest = max(min(values), min(0.9, 1 - 4 * (1 - max(values))))
    margin = 0.04 * (1 - lowest) + 1e-3
    return lowest - margin, 1 + margin


def _mark_best(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, *, has_text: bool) -> None:
    epochs, losses = _column(rows, "val/loss")
    if not epochs or not np.isfinite(losses).any():
        return
    best = epochs[int(np.nanargmin(losses))]
    axes.axvline(best, color=_GREY, linewidth=1, linestyle=":")
    values = dict(zip(*_column(rows, name), strict=True))
    if best in values:
        axes.plot(
            [best],
            [values[best]],
            "o",
            color=_ORANGE,
            markersize=6,
            markeredgecolor="white",
            zorder=5,
        )
    if has_text:
        top = axes.get_ylim()[1]
        is_right = best > 0.6 * max(epochs)
        text = f"best: epoch {best} " if is_right else f" best: epoch {best}"
        axes.text(
            best,
            0.97 * top,
            text,
            color=_GREY,
            fontsize=9,
            va="top",
            ha="right" if is_right else "left",
        )


def _finish_curves(axes: Any, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    epochs = [int(row["epoch"]) for row in rows]
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(width: float, height: float) -> Any:
    figures = import_optional("matplotlib.figure", extra="demo", purpose="the figures of the demo")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def _save(figure: Any, path: str | Path) -> None:
    agg = import_optional(
        "matplotlib.backends.backend_agg", extra="demo", purpose="the figures of the demo"
    )
    agg.FigureCanvasAgg(
        figure
    )  # attaches itself; otherwise the canvas would depend on the user's settings
    figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)
