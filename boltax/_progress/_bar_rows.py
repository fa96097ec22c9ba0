"""Bars as rows that fit the terminal, of which none wraps, and notes, which do between words."""

import re
from collections.abc import Sequence
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from boltax._progress._text import count_text, metrics_text, rate_text, room_for, short_duration
from boltax._progress._tracked import Tracked

GAP = 2
WIDE = 100
SMALLEST_BAR, LARGEST_BAR = 8, 40
SMALLEST_DESC, LONGEST_DESC = 10, 20
STYLES = {"desc": "bold", "count": "none", "rate": "none", "left": "cyan", "metrics": "green"}
IN_TABLE = re.compile("[\u2500-\u257f]")
RIGHT = ("count", "rate", "left")

CHOICES: Sequence[tuple[int, Sequence[str]]] = (
    (2, ()),
    (2, ("rate",)),
    (1, ()),
    (1, ("rate",)),
    (1, ("rate", "bar")),
)
"""So many metrics, and the columns that give way to them; the best is first."""


class BarRows:
    """One row for each bar, in columns below each other.

    Args:
        bars: what to show, in this order.
        now: the display's time.
        is_finished: whether to show the time that was needed instead of the time that is left.
    """

    def __init__(
        self, bars: Sequence[Tracked[Any]], now: float, *, is_finished: bool = False
    ) -> None:
        self._bars = bars
        self._now = now
        self._is_finished = is_finished

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        cells = [_cells(bar, self._now, width, is_finished=self._is_finished) for bar in self._bars]
        widths = _widths(cells, width)
        widths = _with_metrics(widths, self._bars, width)
        if (room := width - _total(widths) - GAP) > 0:
            for bar, row in zip(self._bars, cells, strict=True):
                row["metrics"] = metrics_text(bar.metrics, room)
            widths["metrics"] = room
        for bar, row in zip(self._bars, cells, strict=True):
            for index, (name, columns) in enumerate(widths.items()):
                if index:
                    yield Segment(" " * GAP)
                if name == "bar":
                    drawn = ProgressBar(bar.total, bar.count, columns, pulse=bar.total is None)
                    yield from Segment.adjust_line_length(
                        [*console.render(drawn, options)], columns
                    )
                else:
                    text = row[name].rjust(columns) if name in RIGHT else row[name]
                    yield Segment(set_cell_size(text, columns), console.get_style(STYLES[name]))
            yield Segment.line()


def note_text(text: str) -> Group:
    """A note that breaks between words, except for the lines of a table, which stay whole."""
    return Group(
        *(
            Text(line, no_wrap=True, overflow="ignore") if IN_TABLE.search(line) else Text(line)
            for line in text.split("\n")
        )
    )


def _cells(bar: Tracked[Any], now: float, width: int, *, is_finished: bool) -> dict[str, str]:
    seconds = now - bar.started if is_finished else bar.pace.seconds_left(now, bar.total)
    words = "in {}" if is_finished else "{} left"
    return {
        "desc": bar.desc[:LONGEST_DESC],
        "count": count_text(bar),
        "rate": rate_text(bar, is_wide=width >= WIDE),
        "left": "" if seconds is None else words.format(short_duration(seconds)),
    }


def _widths(cells: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """The columns that fit and their widths; those that say least are left out first."""
    bar = min(max(width // 10, SMALLEST_BAR), LARGEST_BAR)
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


def _with_metrics(
    widths: dict[str, int], bars: Sequence[Tracked[Any]], width: int
) -> dict[str, int]:
    """The columns beside which two metrics find room, or one; all of them where none does."""
    for number, dropped in CHOICES:
        left = {name: columns for name, columns in widths.items() if name not in dropped}
        if _total(left) + GAP + max(room_for(bar.metrics, number) for bar in bars) <= width:
            return left
    return widths


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
