"""The grid as a figure: loss and accuracy against steps and time, mean and range of the seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grid.arms import Arm
from grid.cells import Cell
from grid.tables import Cells
from grid.times import StepTime

COLORS = {
    "SGD + momentum": "#2f6db3",
    "Adam": "#e07b28",
    "AdamW": "#8b5a2b",
    "Celo": "#2f855a",
    "Celo-Adam": "#7b3fa0",
    "VeLO": "#c0392b",
}


def draw(
    arms: Sequence[Arm], cells: Cells, times: Mapping[str, StepTime], title: str, path: Path
) -> None:
    """Writes the figure as a PNG file: solid lines without regularisation, dashed ones with it."""
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row", sharex="col")
    drawn = [arm for arm in arms if any(not cell.failure for cell in cells[arm.name])]
    for arm in drawn:
        finished = [cell for cell in cells[arm.name] if not cell.failure]
        steps = np.asarray(finished[0].steps)
        seconds = steps * times[arm.optimizer].wall
        for row, curve in enumerate(("train_loss", "val_acc")):
            for column, places in enumerate((steps, seconds)):
                _line(grid[row, column], arm, places, finished, curve)
    _finish(grid)
    figure.suptitle(title, fontsize=11)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100)


def _line(axes: Any, arm: Arm, places: Any, cells: Sequence[Cell], curve: str) -> None:
    values = np.asarray([getattr(cell, curve) for cell in cells])
    style = {"color": COLORS[arm.optimizer], "linestyle": "--" if arm.regularizer else "-"}
    axes.plot(places, values.mean(0), linewidth=1.6, label=arm.label, **style)
    band = {"color": COLORS[arm.optimizer], "alpha": 0.08, "linewidth": 0}
    axes.fill_between(places, values.min(0), values.max(0), **band)


def _finish(grid: Any) -> None:
    for axes in grid.flat:
        axes.grid(color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("training loss (augmented images)")
    grid[1, 0].set_ylabel("validation accuracy")
    grid[1, 0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    grid[1, 0].set_xlabel("steps")
    grid[1, 1].set_xlabel("seconds of training, at the time per step in the table")
