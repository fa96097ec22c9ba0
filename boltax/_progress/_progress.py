"""The progress of a run: chooses how to show it, and offers the loop what it needs to say.

    progress = Progress()
    for epoch in (epochs := progress.track(range(1, 31), desc="Epochs", unit="epoch")):
        for batch in (bar := progress.track(loader, desc="Training", leave=False)):
            ...                                         # the step
            advance_examples(bar, 32)
        set_metrics(epochs, {"train/loss": 0.31})

Knows nothing of training. An item costs the loop a counter; bars are drawn elsewhere, at most five
times a second.
"""

import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, TypeVar

from rich.console import Console

from boltax._progress._live import LiveDisplay, is_taken, is_terminal
from boltax._progress._notebook import NotebookDisplay
from boltax._progress._plain import PlainDisplay
from boltax._progress._text import past, took
from boltax._progress._tracked import Display, NoDisplay, Tracked
from boltax.errors import unknown_name

T = TypeVar("T")
WORTH_TELLING = 0.5
"""Seconds that `Progress.status` must take for its end to be told."""
OWN = ("desc", "total", "unit", "leave", "initial", "disable", "postfix")
OF_TQDM = (
    *("ascii", "bar_format", "colour", "delay", "dynamic_ncols", "file", "gui", "lock_args"),
    *("maxinterval", "mininterval", "miniters", "ncols", "nrows", "position", "smoothing"),
    *("unit_divisor", "unit_scale", "write_bytes"),
)


class Progress:
    """Shows the progress of nested loops, in the way that suits where the output goes.

    In a terminal: bars, drawn by a thread. In a notebook: one output, updated in place. Elsewhere:
    plain lines. Beside another live display of rich in the same terminal (training within a hook of
    training, say): plain lines above it.

    Args:
        enabled: whether anything is shown at all; if not, `track` returns what it is given.
        file: where to write; None for the standard output, or the notebook.

    Example:
        >>> with Progress(enabled=False) as progress:
        ...     list(progress.track([1, 2, 3], desc="Counting"))
        [1, 2, 3]
    """

    def __init__(self, enabled: bool = True, file: IO[str] | None = None) -> None:
        self.enabled = enabled
        self._file = file
        self._display: Display = NoDisplay()

    def track(
        self,
        iterable: Iterable[T],
        *,
        desc: str = "",
        total: int | None = None,
        unit: str = "step",
        leave: bool = True,
        initial: int = 0,
        disable: bool | None = False,
        postfix: Mapping[str, Any] | None = None,
        **of_tqdm: Any,
    ) -> Iterable[T]:
        """Shows a bar while `iterable` is iterated over; takes the arguments of tqdm.

        Args:
            iterable: what is iterated over.
            desc: what the bar says.
            total: how many items there are; by default ``len(iterable)`` where it has one.
            unit: the name of one item; bars of unit ``"epoch"`` have a plain line for each.
            leave: whether the last state of the bar stays.
            initial: items that were done before.
            disable: return `iterable` itself.
            postfix: metrics to show from the start.
            **of_tqdm: further arguments of tqdm (``ncols``, ``position`` ...), without effect.

        Returns:
            A `Tracked`; `iterable` itself when nothing is shown.

        Raises:
            UnknownNameError: for an argument that tqdm does not have either.
        """
        for name in of_tqdm:
            if name not in OF_TQDM:
                raise unknown_name("argument of tracker", name, (*OWN, *OF_TQDM))
        if not self.enabled or disable:
            return iterable
        bar = Tracked(
            iterable,
            self._pick,
            desc=desc.rstrip(": "),
            total=_length(iterable) if total is None else int(total),
            unit=unit,
            leave=leave,
            initial=initial,
        )
        bar.metrics = dict(postfix or {})
        return bar

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._pick().note(text)

    @contextmanager
    def status(self, text: str, done: str | None = None) -> Generator[None]:
        """Says what is going on, and then how long it took if that was more than half a second.

        Args:
            text: what is going on, e.g. ``"compiling the train step"``.
            done: what to say at its end; by default `text` in the past, ``"compiled ..."``.
        """
        display = self._pick()
        display.show_status(text)
        started = time.monotonic()
        try:
            yield
        finally:
            display.hide_status(text)
        seconds = time.monotonic() - started
        if seconds > WORTH_TELLING:
            display.note(f"{done or past(text)} in {took(seconds)}")

    def close(self) -> None:
        """Ends all bars and gives the terminal back; calling it again does nothing."""
        self._display.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pick(self) -> Display:
        if self.enabled and self._display.is_idle:  # what holds now may not have held before
            self._display = _choose(self._file, self._display)
        return self._display


def set_metrics(bar: object, metrics: Mapping[str, Any]) -> None:
    """Shows metrics beside a bar of any kind, for a user's `tracker` may return anything.

    Args:
        bar: a `Tracked`; something with tqdm's `set_postfix`, which then shows them at its next
            drawing; or anything else, for which nothing happens.
        metrics: name to value.
    """
    if (show := getattr(bar, "set_metrics", None)) is not None:
        show(metrics)
    elif (show := getattr(bar, "set_postfix", None)) is not None:
        # With `refresh=False` tqdm draws in its own time, at most ten times a second.
        show(metrics, refresh=False)


def advance_examples(bar: object, n: int) -> None:
    """Counts examples as done, where the bar can; see `set_metrics`."""
    if (advance := getattr(bar, "advance_examples", None)) is not None:
        advance(n)


def _choose(file: IO[str] | None, current: Display) -> Display:
    """The display for where the output goes now; `current` if it still fits."""
    if file is None and Console().is_jupyter:
        return current if isinstance(current, NotebookDisplay) else NotebookDisplay()
    stream = file or sys.stdout
    if stream is None:  # a process without streams, such as a windowed one
        return NoDisplay()
    if not is_taken() and is_terminal(stream):
        return LiveDisplay(stream)
    return current if isinstance(current, PlainDisplay) else PlainDisplay(file)


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError):  # loaders over streams raise these
        return None
