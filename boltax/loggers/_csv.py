"""The CSV logger: plain files that a person, a spreadsheet or pandas can read."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boltax.loggers._base import Logger
from boltax.loggers._files import file_name, histogram_text, step_of_file
from boltax.loggers._images import as_images, figure_png, grid, png
from boltax.loggers._table import Table
from boltax.loggers._values import flatten, histogram, scalars


class CsvLogger(Logger):
    """Writes ``metrics.csv`` with one row per step, and a file for each image, figure and text.

    Every row is on disk when `log_metrics` returns; `flush` and `finalize` bring rows of earlier
    steps, as after a resume, to their places. Files are ``images/<key>_<step>.png``,
    ``figures/<key>_<step>.png``, ``histograms/<key>_<step>.csv``, ``text/<key>_<step>.txt`` and
    ``hyperparameters.csv``; slashes in a key are folders.

    Args:
        log_dir: the folder of the run.

    Example:
        >>> from pathlib import Path
        >>> logger = CsvLogger("runs/example")
        >>> logger.log_metrics({"train/loss": 0.5}, step=10)
        >>> logger.log_metrics({"val/acc": 0.9}, step=10)
        >>> print(Path("runs/example/metrics.csv").read_text())
        step,train/loss,val/acc
        10,0.5,0.9
    """

    name = "csv"

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._folder = os.fspath(log_dir)
        self.log_dir = self._folder
        self._table = Table(os.path.join(self._folder, "metrics.csv"), key="step")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds to the row of the step; without a step, a row of its own."""
        if values := scalars(metrics):
            self._table.append(values if step is None else values | {"step": int(step)})

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Writes ``hyperparameters.csv`` with a name and a value in each line."""
        buffer = io.StringIO(newline="")
        rows = [("name", "value"), *flatten(params).items()]
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        self._write("", "hyperparameters.csv", buffer.getvalue().encode())

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Writes a PNG file; a batch becomes a grid."""
        self._write("images", file_name(key, step, ".png"), png(grid(as_images(images))))

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Writes a PNG file."""
        self._write("figures", file_name(key, step, ".png"), figure_png(figure))

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Writes a CSV file with the limits and the count of each bin."""
        if (counted := histogram(values)) is not None:
            name = file_name(key, step, ".csv")
            self._write("histograms", name, histogram_text(counted).encode())

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Writes a text file."""
        self._write("text", file_name(key, step, ".txt"), text.encode())

    def resume(self, step: int) -> None:
        """Removes the rows of later steps, and the files with such a step in their names."""
        self._table.drop_after(step)
        for folder in ("images", "figures", "histograms", "text"):
            for path in Path(self._folder, folder).rglob("*_*"):
                if (step_of_file(path.name) or 0) > step:
                    path.unlink()

    def flush(self) -> None:
        """Brings rows that came late to their places; all else is on disk already."""
        self._table.settle()

    def finalize(self, status: str = "success") -> None:
        """Brings rows that came late to their places; no file is left open between two writes."""
        self._table.settle()

    def _write(self, folder: str, name: str, data: bytes) -> None:
        path = os.path.join(self._folder, folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
