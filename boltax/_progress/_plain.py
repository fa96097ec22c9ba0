"""Plain lines where there is no terminal: one for each epoch, and seldom one within it.

No control characters, no thread that draws: lines are written from the loop itself, which asks the
clock after each item and nothing more.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from boltax._progress._text import count_text, duration, metrics_text, rate_text
from boltax._progress._tracked import Tracked

INTERVAL = 30.0
"""Seconds between two lines of a bar within another, at least."""
FRACTION = 10
"""Lines of a bar within another, at most."""
PATIENCE = 10.0
"""Seconds after which a line says what is going on, if it is not done by then."""


class PlainDisplay:
    """Writes lines to a file.

    Args:
        file: where to; None for the standard output of the moment.
        clock: gives the time in seconds.
    """

    def __init__(
        self, file: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._file = file
        self._bars: list[Tracked[Any]] = []
        self._outer: set[Tracked[Any]] = set()  # bars with others in them: one line for each item
        self._written: dict[
            Tracked[Any], tuple[float, int]
        ] = {}  # time and count of a bar's last line
        self._waiting: dict[str, threading.Timer] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no bar is running."""
        return not self._bars

    def start(self, bar: Tracked[Any]) -> None:
        """Takes notice of a bar."""
        # the steps of an epoch stay what they are where a validation comes between two of them
        if self._bars and self._bars[-1].leave:
            self._outer.add(self._bars[-1])
        if bar.unit == "epoch":
            self._outer.add(bar)
        self._bars.append(bar)
        self._written[bar] = (bar.started, bar.count)

    def advanced(self, bar: Tracked[Any]) -> None:
        """Writes a line if it is time for one."""
        if bar in self._outer:
            bar.sample(self.clock())
            self._write_bar(bar)
        elif (now := self.clock()) >= bar.due:
            bar.due = now + 1
            bar.sample(now)
            if self._is_due(bar, now):
                self._write_bar(bar)

    def finish(self, bar: Tracked[Any]) -> None:
        """Writes the last line of a bar that is to be left."""
        _, count = self._written.pop(bar)
        if bar.leave and bar.count > count:
            bar.sample(self.clock())
            self._write_bar(bar, is_finished=bar not in self._outer)
            del self._written[bar]
        self._bars.remove(bar)
        self._outer.discard(bar)

    def note(self, text: str) -> None:
        """Writes a line."""
        stream = self._file or sys.stdout
        try:
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the reader is gone or the file is closed: no reason to end a run

    def show_status(self, text: str) -> None:
        """Writes a line if what goes on is not done after a while."""
        timer = self._waiting[text] = threading.Timer(PATIENCE, self.note, [f"{text} ..."])
        timer.daemon = True
        timer.start()

    def hide_status(self, text: str) -> None:
        """Takes back the line if it is not written yet."""
        timer = self._waiting.pop(text, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Finishes all bars."""
        for text in list(self._waiting):
            self.hide_status(text)
        for bar in reversed(self._bars.copy()):
            bar.close()

    def _is_due(self, bar: Tracked[Any], now: float) -> bool:
        if bar not in self._written:  # closed by now, though the loop goes on
            return False
        time_written, count_written = self._written[bar]
        least = 1 if bar.total is None else bar.total / FRACTION
        is_last = (
            bar.count == bar.total
        )  # the line of its end, or of the bar around it, comes at once
        return now - time_written >= INTERVAL and bar.count - count_written >= least and not is_last

    def _write_bar(self, bar: Tracked[Any], *, is_finished: bool = False) -> None:
        now = self.clock()
        self._written[bar] = (now, bar.count)
        left = bar.pace.seconds_left(now, bar.total)
        if is_finished:
            ending = f"in {duration(now - bar.started)}"
        else:
            ending = f"{duration(left)} left" if left else ""
        rate = rate_text(bar)
        parts = [*self._around(bar), self._label(bar), rate, metrics_text(bar.metrics), ending]
        self.note("  ".join(part for part in parts if part))

    def _around(self, bar: Tracked[Any]) -> list[str]:
        outer = self._bars[: self._bars.index(bar)]
        return [f"{_name(other)} {_of(other.count + 1, other.total)}" for other in outer]

    def _label(self, bar: Tracked[Any]) -> str:
        if bar in self._outer:
            return f"{_name(bar)} {_of(bar.count, bar.total)}"
        return f"{bar.desc.lower()} {bar.unit} {count_text(bar).strip()}".strip()


def _name(bar: Tracked[Any]) -> str:
    return bar.desc.lower() if bar.desc and bar.unit == "step" else bar.unit


def _of(count: int, total: int | None) -> str:
    return f"{count}" if total is None else f"{count}/{total}"
