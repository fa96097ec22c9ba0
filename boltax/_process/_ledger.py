"""The time ledger: where the wall-clock time of a run went. Knows names and seconds, nothing else.

ledger = Ledger()
with ledger.spent("evaluation"):
    with ledger.spent("compile"):   # counts as compiling, and not as evaluation
        ...
print(ledger.report())
"""

import shutil
import textwrap
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

ADVICE: Mapping[str, Sequence[tuple[str, str]]] = {
    "compile": [("cache", "keep compiled programs on disk (BOLTAX_COMPILATION_CACHE)")],
    "recompile": [
        ("drop_last", "leave out a smaller last batch (drop_last=True)"),
        ("few shapes", "pad batches to a few sizes"),
    ],
    "data": [
        ("ArrayLoader", "use an ArrayLoader"),
        ("workers", "have more workers in the loader"),
        ("device_resident", "keep the data on the device (ArrayLoader(device_resident=True))"),
        ("prefetch", "prefetch more (LoopOptions(prefetch=...))"),
    ],
    "logging": [("log_every", "record less often (LoopOptions(log_every=...))")],
    "checkpoints": [
        ("save_every", "save less often (CheckpointOptions(every_steps=..., every_minutes=...))"),
    ],
    "evaluation": [
        ("check_val_every_n_epoch", "validate less often (check_val_every_n_epoch=...)"),
        ("limit_val_batches", "validate on less (LoopOptions(limit_val_batches=...))"),
    ],
    "hooks": [
        ("callbacks", "call callbacks less often (Callback.every)"),
        ("copies", "copy less from the device in hooks"),
    ],
}
"""The settings that lessen the time spent on something; the device's own time is no waste."""
WORTH_NAMING, WORTH_SECONDS = 0.1, 10.0
"""The share of the time, and the seconds, from which on a waste is named with its remedy."""


class Ledger:
    """Seconds by what they were spent on; of nested parts only the innermost counts.

    Example:
        >>> ledger = Ledger()
        >>> with ledger.spent("data"):
        ...     pass
        >>> sorted(ledger.seconds()) == ["data", "other"]
        True
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._began = self._since = time.perf_counter()

    def spent(self, on: str) -> "_Spent":
        """A context whose time goes to `on`."""
        return _Spent(self, on)

    def enter(self, on: str) -> None:
        """Begins a part; what runs now goes on behind it."""
        self._book()
        self._open.append(on)

    def leave(self) -> None:
        """Ends the innermost part."""
        self._book()
        self._open.pop()

    def seconds(self) -> dict[str, float]:
        """The seconds so far, the largest first; ``other`` is what no part was open for."""
        self._book()
        named = dict(sorted(self._seconds.items(), key=lambda item: -item[1]))
        other = named.pop("other", 0.0)
        return {**named, "other": other}

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def report(self, followed: Collection[str] = (), width: int | None = None) -> str:
        """Where the time went, in one line, and below it the largest waste with its remedy.

        Args:
            followed: settings of `ADVICE` that need no advice, as the run has them already.
            width: columns of the text; by default those of the terminal, where there is one.

        Example:
            >>> print(report({"device": 80.0, "hooks": 20.0, "other": 0.0}))
            Time: 100 s; 80 % device, 20 % hooks
            Less time for hooks: call callbacks less often (Callback.every), or copy less from the
            device in hooks.
        """
        if width is None:
            width = shutil.get_terminal_size((0, 0)).columns
        return report(self.seconds(), followed, width)

    def _book(self) -> None:
        now = time.perf_counter()
        on = self._open[-1] if self._open else "other"
        self._seconds[on] = self._seconds.get(on, 0.0) + now - self._since
        self._since = now


class _Spent:
    """The context of `Ledger.spent`; a class, since it is entered several times in each step."""

    def __init__(self, ledger: Ledger, on: str) -> None:
        self._ledger, self._on = ledger, on

    def __enter__(self) -> None:
        self._ledger.enter(self._on)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.leave()


def report(seconds: Mapping[str, float], followed: Collection[str] = (), width: int = 0) -> str:
    """The text of `Ledger.report` for given seconds; a width of 0 is that of a file."""
    total = sum(seconds.values()) or 1.0
    shares = {on: spent / total for on, spent in seconds.items() if spent >= 0.005 * total}
    parts = ", ".join(f"{share:.0%}".replace("%", " %") + f" {on}" for on, share in shares.items())
    lines = [f"Time: {total:.3g} s; {parts}"]
    advice = {
        on: [text for setting, text in ADVICE[on] if setting not in followed]
        for on, share in shares.items()
        if on in ADVICE and share >= WORTH_NAMING and seconds[on] >= WORTH_SECONDS
    }
    waste = max((on for on in advice if advice[on]), key=lambda on: shares[on], default=None)
    if waste is not None:
        *first, last = advice[waste]
        lines.append(f"Less time for {waste}: {', '.join(first) + ', or ' if first else ''}{last}.")
    width = width or max(map(len, lines))
    return "\n".join(textwrap.fill(line, width, break_long_words=False) for line in lines)
