"""Bars in a terminal, drawn by a timer thread that reads the counters; the loop never draws."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console, Group, RenderableType
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from boltax._progress._bar_rows import BarRows, note_text
from boltax._progress._text import took
from boltax._progress._tracked import Tracked

REFRESHES_PER_SECOND = 5


def is_terminal(stream: IO[str]) -> bool:
    """Whether bars can be drawn there: its cursor moves, and it knows the characters."""
    console = Console(file=stream, force_jupyter=False)
    return is_tty(stream) and console.is_interactive and console.encoding.startswith("utf")


def is_tty(stream: Any) -> bool:
    """Whether a stream is a terminal; False for one that is closed or missing."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def is_taken() -> bool:
    """Whether another live display of rich draws in this terminal; two would tear each other."""
    return isinstance(sys.stdout, FileProxy) or isinstance(sys.stderr, FileProxy)


class LiveDisplay:
    """Draws in a terminal while there is something to show, and leaves it clean afterwards.

    Args:
        stream: the terminal.
        clock: gives the time in seconds.
    """

    advanced = None  # the timer thread reads the counters

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._console = Console(file=cast("IO[str]", _Lasting(stream)), force_jupyter=False)
        self._bars: tuple[Tracked[Any], ...] = ()  # replaced, never changed: the thread reads it
        self._statuses: tuple[_Status, ...] = ()
        self._live: Live | None = None
        self._moved: list[tuple[Any, Any]] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is shown."""
        return not (self._bars or self._statuses)

    def start(self, bar: Tracked[Any]) -> None:
        """Shows a bar below the others."""
        self._bars = (*self._bars, bar)
        self._draw()

    def finish(self, bar: Tracked[Any]) -> None:
        """Takes a bar away, or prints its last state above the others."""
        self._bars = tuple(other for other in self._bars if other is not bar)
        self._stop_when_idle()
        if bar.leave:
            bar.sample(self.clock())
            self._console.print(BarRows([bar], self.clock(), is_finished=True))

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(note_text(text), crop=False)

    def show_status(self, text: str) -> None:
        """Shows a spinner with the text and the time since."""
        self._statuses = (*self._statuses, _Status(text, self.clock))
        self._draw()
        if self._live is not None:
            self._live.refresh()

    def hide_status(self, text: str) -> None:
        """Takes the spinner away."""
        self._statuses = tuple(status for status in self._statuses if status.text != text)
        self._stop_when_idle()

    def close(self) -> None:
        """Finishes all bars and gives the terminal back."""
        self._statuses = ()
        for bar in reversed(self._bars):
            bar.close()
        self._stop_when_idle()

    def _draw(self) -> None:
        if self._live is None:
            live = self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=is_tty(sys.stdout),
                redirect_stderr=is_tty(sys.stderr),
                vertical_overflow="crop",
            )
            streams = sys.stdout, sys.stderr
            live.start(refresh=True)
            self._moved = list(_move_logging(streams, (sys.stdout, sys.stderr)))

    def _stop_when_idle(self) -> None:
        live = self._live
        if live is None or not self.is_idle:
            return
        self._live = None
        for sink, stream in self._moved:
            sink.setStream(stream)
        live.stop()

    def _render(self) -> RenderableType:
        now = self.clock()
        bars = self._bars
        for bar in bars:
            bar.sample(now)
        parts = [*([BarRows(bars, now)] if bars else []), *self._statuses]
        return Group(*(parts or [Text("")]))  # of no line at all, rich would leave an empty one


class _Lasting:
    """A terminal whose end does not end the run: what is written after a hang-up is lost."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Status:
    """A spinner with a text and the seconds since it began."""

    def __init__(self, text: str, clock: Callable[[], float]) -> None:
        self.text = text
        self._clock = clock
        self._started = clock()
        self._spinner = Spinner("dots", style="cyan")

    def __rich__(self) -> RenderableType:
        seconds = self._clock() - self._started
        self._spinner.update(
            text=Text(f"{self.text}  {took(seconds)}" if seconds >= 1 else self.text)
        )
        return self._spinner


def _move_logging(old: tuple[Any, Any], new: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Lets log lines be printed above the bars: logging holds the streams of long ago."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    for sink in {id(s): s for logger in loggers for s in getattr(logger, "handlers", ())}.values():
        for before, after in zip(old, new, strict=True):
            if after is not before and getattr(sink, "stream", None) is before:
                sink.setStream(after)
                yield sink, before
