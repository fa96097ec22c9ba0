"""Runs beside each other as a table of text that fits the terminal."""

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

from boltax._runs._found import Columns
from boltax._runs._run_files import RunFiles

MOST_NAME = 28
"""Columns of a run's name; a longer one is cut in its middle."""


def table(columns: Columns, metrics: Sequence[str], width: int) -> str:
    """Run, differing hyperparameters, metrics, steps, state and age of each run.

    Args:
        columns: the runs, in order.
        metrics: which metrics to show, the first sooner than the others; none for the usual ones.
        width: columns of the terminal. What does not fit is named below the table.

    Raises:
        UnknownNameError: for a metric that no run has.
    """
    runs = columns.runs
    differing = columns.differing()
    models = list(dict.fromkeys(run.model for run in runs))
    shown = ["run", *(["model"] if len(models) > 1 else [])]
    asked = list(metrics) or usual_metrics(columns)
    first, more = asked[:1], asked[1:]
    needed = [*shown, *first, "steps", "state", "age"]
    cells = {name: _column(columns, name) for name in dict.fromkeys([*needed, *differing, *more])}
    chosen, left_out = _fitting(cells, needed, [*_alternating(differing, more)], width)
    order = [n for n in (*shown, *differing, *first, *more) if n in chosen]
    order += [name for name in ("steps", "state", "age") if name in chosen]
    lines = [_line([cells[name][row] for name in order]) for row in range(len(runs) + 1)]
    head = f"{len(runs)} runs" if len(runs) != 1 else "1 run"
    if len(models) == 1:
        head += f" of {_clean(models[0])}"
    notes = [f"not shown, since it is too wide: {', '.join(left_out)}"] if left_out else []
    return "\n".join([head, "", *lines, *([""] if notes else []), *_folded(notes, width)])


def usual_metrics(columns: Columns) -> list[str]:
    """The metric that tells the best model, then its test, then the other validations."""
    first = next((run.monitor[0] for run in columns.runs if run.monitor), None)
    known = columns.metrics
    wanted = [first, f"test/{(first or '').rpartition('/')[2]}", "val/loss", "train/loss"]
    return [name for name in dict.fromkeys(wanted) if name is not None and name in known]


def _column(columns: Columns, name: str) -> list[str]:
    """Title and cells, all of one width; numbers are right-aligned."""
    values = [columns.value(run, name) for run in columns.runs]
    texts = [name, *(_text(name, value) for value in values)]
    width = max(_width(text) for text in texts)
    is_number = all(isinstance(v, int | float) or v is None for v in values)
    return [
        " " * (width - _width(text)) + text if is_number else text + " " * (width - _width(text))
        for text in texts
    ]


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "age":
        return age(value)
    if name == "run":
        return _cut(_clean(value), MOST_NAME)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if name == "steps" else _cut(_clean(str(value)), MOST_NAME)


def age(seconds: float) -> str:
    """``5 s``, ``12 min``, ``3 h``, ``2 d``.

    Example:
        >>> age(30), age(7200), age(200000)
        ('30 s', '2 h', '2 d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _alternating(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Three hyperparameters, then the other metrics, then the rest."""
    return [*first[:3], *second, *first[3:]]


def _fitting(
    cells: dict[str, list[str]], needed: list[str], others: list[str], width: int
) -> tuple[set[str], list[str]]:
    """Which columns there is room for, and which there is none for."""
    chosen, left_out = list(needed), list[str]()
    for name in dict.fromkeys(others):
        if name in chosen:
            continue
        total = sum(_width(cells[n][0]) + 2 for n in (*chosen, name)) - 2
        (chosen if total <= width else left_out).append(name)
    while sum(_width(cells[n][0]) + 2 for n in chosen) - 2 > width and len(chosen) > 1:
        left_out.append(chosen.pop())  # age, state, steps
    return set(chosen), left_out


def _line(parts: Sequence[str]) -> str:
    return "  ".join(parts).rstrip()


def _folded(notes: Sequence[str], width: int) -> list[str]:

    return [line for note in notes for line in textwrap.wrap(note, width)]


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    left = (most - 1) // 2
    return f"{text[:left]}…{text[-(most - 1 - left) :]}"


def _clean(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def plain(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """The runs as JSON."""
    return [run.to_json() for run in runs]
