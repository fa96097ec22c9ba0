"""Bars as rows that fit the terminal: metrics are cut first, and nothing ever wraps."""

from collections.abc import Sequence
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment

from boltax._progress._text import count_text, metrics_text, rate_text, short_duration
from boltax._progress._tracked import Tracked

GAP = 2
WIDE = 100
SMALLEST_BAR, LARGEST_BAR = 8, 40
SMALLEST_DESC, LONGEST_DESC = 10, 20
STYLES = {"desc": "bold", "count": "none", "rate": "none", "left": "cyan", "metrics": "green"}
RIGHT = ("count", "rate", "left")


class Rows:
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


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
