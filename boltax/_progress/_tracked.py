"""An iterable that counts, and the interface of what shows the count.

The loop pays for a counter and no more: nothing here draws, formats or waits for the device. A
display looks at the counter when it wants to, from a thread or at most a few times a second.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
WINDOW = 30.0
"""Seconds over which a rate is averaged."""


class Pace:
    """How fast a count grows: the mean of about the last half minute, without the first item.

    The first item is left out as soon as there is another, because compilation happens in it.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()
        self._has_first = True  # the sample of the start, before the first item

    def sample(self, now: float, count: int, examples: int) -> None:
        """Remembers the counts at this time, if they have grown."""
        samples = self._samples
        if samples and samples[-1][1] == count:
            return
        samples.append((now, count, examples))
        is_old = len(samples) > 3 and now - samples[1][0] > WINDOW
        if is_old or (self._has_first and len(samples) == 3):
            self._has_first = False
            samples.popleft()

    def rates(self) -> tuple[float, float] | None:
        """Items per second and examples per second; None until that is known."""
        if len(self._samples) < 2:
            return None
        (then, count, examples), (now, new_count, new_examples) = (
            self._samples[0],
            self._samples[-1],
        )
        seconds = now - then
        if seconds <= 0:
            return None
        return (new_count - count) / seconds, (new_examples - examples) / seconds

    def seconds_left(self, now: float, total: int | None) -> float | None:
        """Seconds until `total` items are done; None while that is unknown."""
        rates = self.rates()
        if total is None or rates is None or rates[0] <= 0:
            return None
        sampled, count, _ = self._samples[-1]
        return max(0.0, (total - count) / rates[0] - (now - sampled))


class Display(Protocol):
    """What shows bars: a terminal, a notebook, plain lines, or nothing."""

    @property
    def clock(self) -> Callable[[], float]:
        """Gives the time in seconds."""
        ...

    @property
    def advanced(self) -> "Callable[[Tracked[Any]], None] | None":
        """Called after each item; None for a display that looks at the counter by itself."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing is shown at the moment."""
        ...

    def start(self, bar: "Tracked[Any]") -> None:
        """Shows a bar below those that are shown already."""
        ...

    def finish(self, bar: "Tracked[Any]") -> None:
        """Takes a bar away, or leaves its last state where `bar.leave`."""
        ...

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        ...

    def show_status(self, text: str) -> None:
        """Says that something is going on."""
        ...

    def hide_status(self, text: str) -> None:
        """Ends `show_status`."""
        ...

    def close(self) -> None:
        """Finishes all bars."""
        ...


class NoDisplay:
    """Shows nothing: for ``enable_progress_bar=False``, and for a process without streams."""

    clock = staticmethod(time.monotonic)
    advanced = None
    is_idle = True

    def start(self, bar: "Tracked[Any]") -> None:
        """Shows nothing."""

    def finish(self, bar: "Tracked[Any]") -> None:
        """Takes nothing away."""

    def note(self, text: str) -> None:
        """Prints nothing."""

    def show_status(self, text: str) -> None:
        """Says nothing."""

    def hide_status(self, text: str) -> None:
        """Ends nothing."""

    def close(self) -> None:
        """Finishes nothing."""


class Tracked(Generic[T]):
    """An iterable whose progress is shown while it is iterated over; made by `Progress.track`.

    Attributes:
        desc: what the bar says.
        total: how many items there are; None when unknown.
        unit: the name of one item.
        leave: whether the bar's last state stays.
        count: items that are done.
        examples: examples that are done.
        metrics: what is shown beside the bar.
        started: the display's time at which the iteration began.
        due: for the display: the time before which it need not look at this bar again.
        pace: how fast `count` and `examples` grow.

    Example:
        >>> from boltax._progress._progress import Progress
        >>> for number in (
        ...     bar := Progress(enabled=True).track([1, 2], desc="Counting", leave=False)
        ... ):
        ...     bar.set_metrics({"number": number})
        >>> bar.count
        2
    """

    def __init__(
        self,
        iterable: Iterable[T],
        display: Callable[[], Display],
        *,
        desc: str = "",
        total: int | None = None,
        unit: str = "step",
        leave: bool = True,
        initial: int = 0,
    ) -> None:
        self.desc, self.total, self.unit, self.leave = desc, total, unit, leave
        self.count, self.examples = initial, 0
        self.metrics: Mapping[str, Any] = {}
        self.started = self.due = 0.0
        self.pace = Pace()
        self._iterable = iterable
        self._initial = initial
        self._pick_display = display
        self._display: Display | None = None  # while the bar is shown
        self._count_at_metrics = -1

    def __iter__(self) -> Iterator[T]:
        advanced = self._start().advanced
        try:
            if advanced is None:
                for item in self._iterable:
                    yield item
                    self.count += 1
            else:
                for item in self._iterable:
                    yield item
                    self.count += 1
                    advanced(self)
        except GeneratorExit:
            # The body left by `break`. If it set this item's metrics before, the item was done.
            self.count += self._count_at_metrics == self.count
            raise
        finally:
            self.close()

    def set_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Shows metrics beside the bar, in place of those before; formatted only when drawn."""
        self.metrics = metrics
        self._count_at_metrics = self.count

    def advance_examples(self, n: int) -> None:
        """Counts `n` more examples as done."""
        self.examples += n

    def set_postfix(
        self, ordered_dict: Mapping[str, Any] | None = None, refresh: bool = True, **metrics: Any
    ) -> None:
        """Shows metrics, called as in tqdm; `refresh` has no effect."""
        self.set_metrics({**(ordered_dict or {}), **metrics})

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        """Changes what the bar says, called as in tqdm; `refresh` has no effect."""
        self.desc = desc or ""

    def update(self, n: int = 1) -> None:
        """Counts `n` more items as done, where nothing is iterated over; `close` ends it."""
        display = self._display or self._start()
        self.count += n
        if display.advanced is not None:
            display.advanced(self)

    def close(self) -> None:
        """Ends the display of this bar; calling it again does nothing."""
        display, self._display = self._display, None
        if display is not None:
            display.finish(self)

    def sample(self, now: float) -> None:
        """Lets the pace know the counts of this time."""
        self.pace.sample(now, self.count, self.examples)

    def _start(self) -> Display:
        self.close()
        display = self._display = self._pick_display()
        self.count, self.examples, self.due = self._initial, 0, 0.0
        self._count_at_metrics = -1
        self.started = display.clock()
        self.pace = Pace()
        self.sample(self.started)
        display.start(self)
        return display
