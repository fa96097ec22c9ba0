"""The table of a population: one row for each member, and one for each epoch of each member."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boltax._base._monitor import Monitor, advice, is_better, metric_names
from boltax._base._optional import import_optional
from boltax.errors import ConfigurationError, unknown_name

_FIRST = ("member", "seed", "status", "epoch", "step")


@dataclass(frozen=True)
class Table:
    """What a population has come to.

    Attributes:
        rows: one mapping for each member: ``"member"``, ``"seed"``, its hyperparameters,
            ``"status"``, ``"reason"``, ``"epoch"``, ``"step"``, and the metrics of its best
            validation.
        history: one mapping for each epoch of each member: ``"member"``, ``"epoch"``, ``"step"``
            and the metrics of that epoch.
        monitors: what tells the best, in the order in which they are asked.

    Example:
        >>> table = Table(
        ...     rows=[{"member": 0, "seed": 0, "lr": 0.1, "val/acc": 0.5},
        ...           {"member": 1, "seed": 0, "lr": 0.3, "val/acc": 0.9}],
        ...     history=[], monitors=[("val/acc", "max")])
        >>> table.best()["lr"]
        0.3
        >>> print(table)
        member  seed   lr  val/acc
             0     0  0.1      0.5
             1     0  0.3      0.9
    """

    rows: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    monitors: Sequence[Monitor]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return self.rows[number]

    def __str__(self) -> str:
        names = [name for name in _columns(self.rows) if name != "reason"]
        cells = [names, *([_shown(row.get(name)) for name in names] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)
        return "\n".join(line.rstrip() for line in lines)

    def best(self) -> Mapping[str, Any]:
        """The row of the best member, by the trainer's monitor.

        Raises:
            ConfigurationError: when no member has a validation that was finite.
        """
        best: Mapping[str, Any] | None = None
        names = [name for name, _ in self.monitors]
        for row in self.rows:
            if any(name in row for name in names) and is_better(self.monitors, row, best):
                best = row
        if best is None:
            raise ConfigurationError(
                f"Received a table in which no member has any of {', '.join(names)}; expected a "
                "validation that was finite. Hand train_model a val_loader, or write "
                f"{self._advice()} for the trainer."
            )
        return best

    def to_pandas(self, *, history: bool = False) -> Any:
        """The rows as a `pandas.DataFrame`.

        Args:
            history: the epochs of the members in place of the members.

        Raises:
            MissingExtraError: when pandas is not installed.
        """
        pandas: Any = import_optional("pandas", extra="tune", purpose="Table.to_pandas")
        return pandas.DataFrame([dict(row) for row in (self.history if history else self.rows)])

    def to_csv(self, path: str | os.PathLike[str], *, history: bool = False) -> None:
        """Writes the rows to a CSV file.

        Args:
            path: the file.
            history: the epochs of the members in place of the members.
        """
        rows = self.history if history else self.rows
        text = io.StringIO()
        writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        Path(path).write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str], *, metric: str | None = None) -> None:
        """Draws a metric over the epochs.

        Members that differ in the seed alone share a line, their mean, with a band around it, their
        standard deviation.

        Args:
            path: the file; its ending says in which format.
            metric: which one; by default the first monitor that exists.

        Raises:
            UnknownNameError: for a metric that does not exist.
            MissingExtraError: when matplotlib is not installed.
        """
        known = [name for name in _columns(self.history) if "/" in name]
        metric = metric or next((name for name, _ in self.monitors if name in known), None)
        if metric not in known:
            raise unknown_name("metric", metric, known)
        figures: Any = import_optional("matplotlib.figure", extra="tune", purpose="Table.plot")
        figure = figures.Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for label, epochs, mean, spread in self.curves(metric):
            (line,) = axes.plot(epochs, mean, label=label, marker="." if len(epochs) < 2 else "")
            axes.fill_between(
                epochs, mean - spread, mean + spread, alpha=0.2, color=line.get_color()
            )
        axes.set(xlabel="epoch", ylabel=metric)
        axes.grid(alpha=0.3)
        if len(axes.lines) <= 12:
            axes.legend(fontsize="small")
        figure.savefig(path)

    def curves(self, metric: str) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """What `plot` draws: label, epochs, mean and spread of each set of hyperparameters."""
        labels = {row["member"]: self._label(row) for row in self.rows}
        values: dict[str, dict[int, list[float]]] = {}
        for row in self.history:
            if metric in row and math.isfinite(value := float(row[metric])):
                by_epoch = values.setdefault(labels[row["member"]], {})
                by_epoch.setdefault(int(row["epoch"]), []).append(value)
        return [
            (
                label,
                np.array(sorted(by_epoch)),
                np.array([np.mean(by_epoch[epoch]) for epoch in sorted(by_epoch)]),
                np.array([np.std(by_epoch[epoch]) for epoch in sorted(by_epoch)]),
            )
            for label, by_epoch in values.items()
        ]

    def _advice(self) -> str:
        known = metric_names([n for n in _columns([*self.rows, *self.history]) if "/" in n])
        return advice(known[0] if known else "val/loss")

    def _label(self, row: Mapping[str, Any]) -> str:
        own = [
            f"{name} {_shown(value)}"
            for name, value in row.items()
            if name not in (*_FIRST, "reason") and "/" not in name
        ]
        return ", ".join(own) or "all members"


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _cell(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
