"""Bars as rows of a table that fits the terminal: metrics are cut first, and nothing ever wraps."""

from collections.abc import Sequence
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from boltax._progress._text import count_text, metrics_text, rate_text, short_duration
from boltax._progress._tracked import Tracked

GAP = 2
WIDE = 100
SMALLEST_BAR, LARGEST_BAR = 8, 40
SMALLEST_DESC, LONGEST_DESC = 10, 20
STYLES = {"desc": "bold", "count": "", "rate": "", "left": "cyan", "metrics": "green"}
RIGHT = ("count", "rate", "left")


def rows(
    bars: Sequence[Tracked[Any]], now: float, width: int, *, is_finished: bool = False
) -> Table:
    """A table with one row for each bar.

    Args:
        bars: what to show, in this order.
        now: the display's time.
        width: columns of the terminal; no row is longer.
        is_finished: whether to show the time that was needed instead of the time that is left.
    """
    cells = [_cells(bar, now, is_wide=width >= WIDE, is_finished=is_finished) for bar in bars]
    widths = _widths(cells, width)
    if (room := width - _total(widths) - GAP) > 0:
        for bar, row in zip(bars, cells, strict=True):
            row["metrics"] = metrics_text(bar.metrics, room)
        widths["metrics"] = room
    table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for name, columns in widths.items():
        justify = "right" if name in RIGHT else "left"
        table.add_column(width=columns, no_wrap=True, overflow="ellipsis", justify=justify)
    for bar, row in zip(bars, cells, strict=True):
        drawn = ProgressBar(total=bar.total, completed=bar.count, pulse=bar.total is None)
        texts = {name: Text(text, style=STYLES[name]) for name, text in row.items()}
        table.add_row(*(drawn if name == "bar" else texts[name] for name in widths))
    return table


def _cells(bar: Tracked[Any], now: float, *, is_wide: bool, is_finished: bool) -> dict[str, str]:
    seconds = now - bar.started if is_finished else bar.pace.seconds_left(now, bar.total)
    words = "in {}" if is_finished else "{} left"
    return {
        "desc": bar.desc[:LONGEST_DESC],
        "count": count_text(bar),
        "rate": rate_text(bar, is_wide=is_wide),
        "left": "" if seconds is None else words.format(short_duration(seconds)),
    }


def _widths(cells: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """The columns that fit and their widths; those that say least are left out first."""
    bar = min(max(width // 8, SMALLEST_BAR), LARGEST_BAR)
    widths = {
        name: max(len(row[name]) for row in cells) for name in ("desc", "count", "rate", "left")
    }
    desc = widths.pop("desc")
    if len(cells) > 1:  # room for most words, so that nothing moves from one inner bar to the next
        desc = max(desc, SMALLEST_DESC)
    widths = {"desc": desc, "bar": bar, **widths}
    widths = {name: columns for name, columns in widths.items() if columns}
    for dropped in ("rate", "left", "bar", "desc"):
        if _total(widths) > width:
            widths.pop(dropped, None)
    return widths


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
