"""Bars in a notebook: one output that is updated in place, without ipywidgets.

It is drawn from the loop itself, a few times a second: what another thread shows may land in the
output of another cell.
"""

import importlib
import io
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from boltax._progress._bar_rows import BarRows, note_text
from boltax._progress._tracked import Tracked

INTERVAL = 0.25
"""Seconds between two drawings, at least."""
WIDTH = 100
HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'

Show = Callable[[dict[str, str]], Callable[[dict[str, str]], None]]
"""Shows a bundle of texts by their type, and returns what replaces it by another."""


class NotebookDisplay:
    """Draws into one output of the running cell, and into a new one when all bars have ended.

    Args:
        show: makes an output; the default is IPython's display with a display_id.
        clock: gives the time in seconds.
    """

    def __init__(
        self, show: Show | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._show = show or _show_in_ipython
        self._update: Callable[[dict[str, str]], None] | None = None  # of the output that is open
        self._bars: list[Tracked[Any]] = []
        self._statuses: list[str] = []
        self._kept: list[RenderableType] = []  # notes and finished bars of the open output
        self._due = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no bar is running."""
        return not self._bars

    def start(self, bar: Tracked[Any]) -> None:
        """Shows a bar; one that will vanish is not drawn before it has lasted a moment."""
        self._bars.append(bar)
        if bar.leave:
            self._draw()
        elif self._update is None:
            self._due = self.clock() + INTERVAL

    def advanced(self, bar: Tracked[Any]) -> None:
        """Draws if the last time is long enough ago."""
        if self.clock() >= self._due and self._bars:
            self._draw()

    def finish(self, bar: Tracked[Any]) -> None:
        """Takes a bar away, or keeps its last state."""
        self._bars.remove(bar)
        if bar.leave:
            bar.sample(self.clock())
            self._kept.append(BarRows([bar], self.clock(), is_finished=True))
        if not self._bars:
            if self._kept or self._update is not None:
                self._draw()
            self._update, self._kept = None, []

    def note(self, text: str) -> None:
        """Adds a line above the bars, or prints it where there are none."""
        if self._bars:
            self._kept.append(note_text(text))
            self._draw()
        else:
            sys.stdout.write(text + "\n")

    def show_status(self, text: str) -> None:
        """Shows a line below the bars."""
        self._statuses.append(text)
        if self._bars:
            self._draw()

    def hide_status(self, text: str) -> None:
        """Takes the line away at the next drawing."""
        self._statuses = [status for status in self._statuses if status != text]

    def close(self) -> None:
        """Finishes all bars."""
        self._statuses = []
        for bar in reversed(self._bars.copy()):
            bar.close()

    def _draw(self) -> None:
        now = self.clock()
        for bar in self._bars:
            bar.sample(now)
        table = [BarRows(tuple(self._bars), now)] if self._bars else []
        bundle = _bundle([*self._kept, *table, *(Text(f"{text} ...") for text in self._statuses)])
        if self._update is None:
            self._update = self._show(bundle)
        else:
            self._update(bundle)
        self._due = self.clock() + INTERVAL


def _bundle(parts: Iterable[RenderableType]) -> dict[str, str]:
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False, color_system="truecolor"
    )
    console.print(Group(*parts), crop=False)
    html = console.export_html(inline_styles=True, code_format=HTML, clear=False)
    return {"text/html": html, "text/plain": console.export_text().rstrip()}


def _show_in_ipython(bundle: dict[str, str]) -> Callable[[dict[str, str]], None]:
    ipython = importlib.import_module("IPython.display")  # there is a notebook, so there is IPython
    output = ipython.display(bundle, raw=True, display_id=True)
    return lambda changed: output.update(changed, raw=True)
