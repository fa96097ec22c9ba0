"""The course of a run: its rows, as a table or a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from boltax._base._optional import import_optional
from boltax.errors import MetricsError


class Course(Sequence[Mapping[str, Any]]):
    """The rows of a run: one for each epoch, or for each validation; `trainer.history`.

    Args:
        rows: metrics by name, with ``"epoch"`` and ``"step"``.

    Example:
        >>> course = Course([{"epoch": 1, "step": 10, "val/loss": 0.5},
        ...                  {"epoch": 2, "step": 20, "val/loss": 0.4}])
        >>> course["val/loss"], len(course), course[-1]["step"]
        ([0.5, 0.4], 2, 20)
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> list[Mapping[str, Any]]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        """A row, or the values of a metric in the rows that have it."""
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self.names:
            raise MetricsError(
                f"Received {key!r}, which is in no row of the history; expected one of: "
                f"{', '.join(self.names) or 'none yet'}."
            )
        return [row[key] for row in self._rows if key in row]

    def __repr__(self) -> str:
        last = {n: v for n, v in self._rows[-1].items() if _is_number(v)} if self._rows else {}
        return f"{len(self)} rows, the last: {last}"

    @property
    def names(self) -> list[str]:
        """The names of all values, in the order in which they came."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`, with NaN where a row has no value.

        Raises:
            MissingExtraError: without pandas.
        """
        pandas: Any = import_optional("pandas", extra="tune", purpose="trainer.history.to_pandas")
        return pandas.DataFrame(self._rows)

    def plot(self, *names: str, path: str | None = None) -> Any:
        """Draws metrics over the steps, those of training and of the validation in one panel.

        Args:
            *names: of metrics without their phase, ``"loss"``; by default all that are numbers.
            path: where to save the figure; None to return it alone.

        Returns:
            The figure of matplotlib.

        Raises:
            MetricsError: for a name that there is not.
        """
        purpose = "trainer.history.plot"
        figures: Any = import_optional("matplotlib.figure", extra="demo", purpose=purpose)
        curves = self._curves()
        wanted = list(names) or list(curves)
        if unknown := [name for name in wanted if name not in curves]:
            raise MetricsError(
                f"Received {unknown[0]!r} to plot; expected one of: {', '.join(curves) or 'none'}."
            )
        figure = figures.Figure(figsize=(5 * max(1, len(wanted)), 3.5), layout="constrained")
        for place, name in enumerate(wanted, 1):
            axes = figure.add_subplot(1, len(wanted), place)
            for label, points in curves[name].items():
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
            axes.set_xlabel("step")
            axes.set_title(name)
            axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def _curves(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """The points of each metric: by its name without the phase, then by its whole name."""
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for row in self._rows:
            for name, value in row.items():
                phase, _, own = name.partition("/")
                if phase in ("train", "val") and own and _is_number(value):
                    own = own.rpartition("/")[2]
                    points = curves.setdefault(own, {}).setdefault(name, [])
                    points.append((int(row["step"]), float(value)))
        return curves


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
