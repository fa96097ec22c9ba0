"""What the demo prints at its end: a table of results, and the lines to type next."""

import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from boltax.demo._data import DemoData

Row = Mapping[str, Any]


def print_results(
    images: DemoData,
    rows: Sequence[Row],
    metrics: Mapping[str, float],
    *,
    parameters: int,
    seconds: float,
) -> None:
    """Prints the table of a run's results.

    Args:
        images: the data set.
        rows: the history, a mapping for each epoch.
        metrics: metrics of the best validation, and of the test.
        parameters: how many the model has.
        seconds: time of the whole run.
    """
    best = best_row(rows)
    values = {**best, **metrics}
    table = Table()
    table.add_column("")
    for name in ("images", "accuracy", "loss"):
        table.add_column(name, justify="right")
    sets = {"train": "training", "val": "validation", "test": "test"}
    for phase, title in sets.items():
        count = len(getattr(images, phase)[1])
        accuracy, loss = values[f"{phase}/acc"], values[f"{phase}/loss"]
        table.add_row(
            title,
            f"{count:,}",
            f"{accuracy:.2%}",
            f"{loss:.4f}",
            style="bold" if phase == "test" else None,
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\nResNet on {images.name}: the best model, of epoch {best['epoch']}")
    console.print(table)
    console.print("Training: with augmented images and smoothed labels.")
    console.print(f"{parameters:,} parameters, {len(rows)} epochs, {seconds:.1f} s in all.\n")


def print_next_steps(
    images: DemoData, figures: Sequence[Path], *, log_dir: str | Path, base: str | Path
) -> None:
    """Prints where the pictures are, and the lines that open TensorBoard and load the model.

    Args:
        images: the data set.
        figures: the pictures that were written.
        log_dir: the run's folder.
        base: folder of all runs.
    """
    folder = shortest(log_dir)
    names = ", ".join(figure.name for figure in figures)
    shape = ", ".join(map(str, images.image_shape))
    install = "" if importlib.util.find_spec("tensorboard") else "pip install tensorboard && "
    lines = (
        f"Pictures in {folder}: {names}",
        "",
        "Open TensorBoard:",
        f"    {install}tensorboard --logdir {_quoted(shortest(base))}",
        "",
        "Load the model:",
        "    from boltax.demo import DemoClassifier",
        f"    model = DemoClassifier.load_from_checkpoint({folder!r}).bind_model()",
        f"    logits = model(images)  # [batch, {shape}] -> [batch, {len(images.class_names)}]",
    )
    Console().print(
        "\n".join(lines), markup=False, highlight=False, soft_wrap=True
    )  # lines that can be copied whole


def best_row(rows: Sequence[Row]) -> Row:
    """The epoch with the least validation loss; the last one where none is finite."""

    def loss(row: Row) -> float:
        value = row.get("val/loss", math.inf)
        return value if math.isfinite(value) else math.inf

    return min(reversed(rows), key=loss)


def shortest(path: str | Path) -> str:
    """A path relative to the current folder where it lies in it, else as it is."""
    absolute, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(absolute) if absolute.startswith(here + os.sep) else str(path)


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
