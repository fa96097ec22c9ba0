"""A chart of curves as SVG: axes with round numbers, a line for each run and phase.

The text of a chart is real text, colours are variables of the page, and its limits stand in
``data-`` attributes, so that what it shows can be read back out of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from boltax._runs._logged import Points

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 32
_LOG_FROM = 100
"""A quotient of largest and smallest value from which on an axis is logarithmic."""


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        run: the number of its run, which gives the colour.
        label: what a pointer over it shows.
        points: its values by step.
        style: ``"val"``, ``"train"``, or ``"fine"`` for single steps.
    """

    run: int
    label: str
    points: Points
    style: str


@dataclass(frozen=True)
class Scale:
    """From numbers to places on an axis.

    Attributes:
        low: the smallest number.
        high: the largest.
        first: the place of the smallest.
        last: that of the largest.
        is_log: whether it is logarithmic.
    """

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False

    def place(self, number: float) -> float:
        low, high, number = map(self._form, (self.low, self.high, number))
        return self.first + (number - low) / ((high - low) or 1) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Round numbers, at most seven."""
        if self.is_log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            if len(powers) > 1:
                return [10.0**power for power in powers[:: 1 + len(powers) // 7]]
        step = nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + number) * step for number in range(count)]

    def _form(self, number: float) -> float:
        return math.log10(number) if self.is_log else number


def nice_step(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not smaller.

    Example:
        >>> nice_step(0.03), nice_step(7)
        (0.05, 10.0)
    """
    size = 10.0 ** math.floor(math.log10(step))
    factor = next(f for f in (1.0, 2.0, 5.0, 10.0) if f * size >= step * (1 - 1e-9))
    return float(f"{factor * size:.3g}")


def chart(title: str, lines: Sequence[Line]) -> str:
    """The chart of some curves.

    Args:
        title: above it.
        lines: its curves; values that are not finite are left out, and cut a curve.

    Returns:
        A ``<figure>``.
    """
    numbers = [y for line in lines for _, y in line.points if math.isfinite(y)]
    steps = [x for line in lines for x, _ in line.points]
    if not numbers:
        return ""
    across = Scale(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    down = _vertical(numbers)
    note = " (logarithmic)" if down.is_log else ""
    curves = "".join(_curve(line, across, down) for line in lines)
    return (
        f'<figure><figcaption>{escape(title)}<small>{note}</small></figcaption><svg viewBox="0 0 '
        f'{WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" data-low="{down.low!r}" '
        f'data-high="{down.high!r}" data-log="{int(down.is_log)}">'
        f"{_axes(across, down)}{curves}</svg></figure>"
    )


def _vertical(numbers: Sequence[float]) -> Scale:
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low >= _LOG_FROM:
        return Scale(low, high, HEIGHT - BOTTOM, TOP, is_log=True)
    margin = (high - low or abs(high) or 1) * 0.05
    return Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def _axes(across: Scale, down: Scale) -> str:
    parts: list[str] = []
    for number in down.ticks():
        y = f"{down.place(number):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" class="left">{short(number)}</text>')
    for number in across.ticks() if across.high > across.low else [across.low]:
        x = f"{across.place(number):.1f}"
        is_last = across.place(number) > WIDTH - RIGHT - 30  # it would hang over the edge
        name = "left" if is_last else "below"
        x = f"{WIDTH - RIGHT}" if is_last else x
        parts.append(f'<text x="{x}" y="{HEIGHT - 10}" class="{name}">{short(number)}</text>')
    return "".join(parts)


def _curve(line: Line, across: Scale, down: Scale) -> str:
    pieces, piece = list[str](), list[str]()
    for x, y in [*line.points, (0.0, math.nan)]:
        if math.isfinite(y):
            piece.append(f"{across.place(x):.1f},{down.place(y):.2f}")
        elif piece:
            pieces.append("M" + "L".join(piece))
            piece = []
    ends = [part.rpartition("L")[2].removeprefix("M").split(",") for part in pieces]
    is_dot = line.style != "fine" and (len(line.points) == 1 or not pieces[-1].count("L"))
    dot = f'<circle cx="{ends[-1][0]}" cy="{ends[-1][1]}" r="3"/>' if pieces and is_dot else ""
    return (
        f'<g class="{line.style} run{line.run}" data-label="{escape(line.label)}">'
        f'<title>{escape(line.label)}</title><path d="{"".join(pieces)}"/>{dot}</g>'
    )


def short(number: float) -> str:
    """A number for an axis.

    Example:
        >>> short(0.25), short(20000.0), short(1e-05)
        ('0.25', '20k', '1e-5')
    """
    if abs(number) >= 1e4:
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(number) >= size:
                return f"{number / size:.4g}{unit}"
    text = f"{number:.4g}" if number else "0"
    return text.replace("e-0", "e-").replace("e+0", "e")
