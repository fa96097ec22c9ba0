"""The time ledger: where the wall-clock time of a run went. Knows names and seconds, nothing else.

ledger = Ledger()
with ledger.spent("evaluation"):
    with ledger.spent("compile"):   # counts as compiling, and not as evaluation
        ...
print(ledger.report())
"""

import time
from collections.abc import Mapping
from types import TracebackType

ADVICE = {
    "compile": "Keep the shapes of batches equal (drop_last=True); a second start compiles nothing",
    "data": "Use an ArrayLoader, more workers in the loader, or a larger prefetch",
    "logging": "Record less often: LoopOptions(log_every=...)",
    "checkpoints": "Save less often: CheckpointOptions(every_steps=..., every_minutes=...)",
    "evaluation": "Validate less often (check_val_every_n_epoch), or less of it "
    "(LoopOptions(limit_val_batches=...))",
    "hooks": "Call callbacks less often (Callback.every), and copy less from the device in them",
}
"""The setting that removes the time spent on something; the device's own time is no waste."""
WORTH_NAMING = 0.1
"""The share of the time from which on a waste is named with its remedy."""


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

    def report(self) -> str:
        """Where the time went, in one line, and below it the largest waste with its remedy.

        Example:
            >>> print(report({"device": 8.0, "data": 2.0, "other": 0.0}))
            Time: 10 s; 80 % device, 20 % data
            Most of the rest is data: Use an ArrayLoader, more workers in the loader, or a larger
            prefetch.
        """
        return report(self.seconds())

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


def report(seconds: Mapping[str, float]) -> str:
    """The text of `Ledger.report` for given seconds."""
    total = sum(seconds.values()) or 1.0
    shares = {on: spent / total for on, spent in seconds.items() if spent >= 0.005 * total}
    parts = ", ".join(f"{share:.0%}".replace("%", " %") + f" {on}" for on, share in shares.items())
    line = f"Time: {total:.3g} s; {parts}"
    waste = max((on for on in shares if on in ADVICE), key=lambda on: shares[on], default=None)
    if waste is None or shares[waste] < WORTH_NAMING:
        return line
    return f"{line}\nMost of the rest is {waste}: {ADVICE[waste]}."
