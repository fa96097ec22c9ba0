"""Shows the members that train in a study: a live table in a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from boltax._base._monitor import Monitor
from boltax._progress._live import REFRESHES_PER_SECOND, is_taken, is_terminal
from boltax._progress._text import took

BESIDE = 6
"""Lines of the terminal that are not for members."""


@dataclass(frozen=True)
class Shown:
    """A trial as it is shown.

    Attributes:
        number: of the trial.
        hyperparameters: by name.
        epoch: completed epochs.
        value: of the monitored metric, of the last epoch; None before.
        best: the best so far.
    """

    number: int
    hyperparameters: Mapping[str, Any]
    epoch: int = 0
    value: float | None = None
    best: float | None = None


class MembersTable:
    """Shows nothing: the table of a study without progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Does nothing."""

    def show(self, members: Sequence[Shown]) -> None:
        """Shows the members that train now."""

    def ended(self, trial: Shown, state: str) -> None:
        """Notes that a trial has ended: as complete, pruned or diverged."""

    def waits(self) -> None:
        """Notes that this worker has nothing to do, and waits for the others."""


class _Told(MembersTable):
    """What both forms know: how many trials have ended, and the best of them."""

    def __init__(self, monitor: Monitor, num_epochs: int, n_trials: int) -> None:
        self._monitor, self._num_epochs, self._n_trials = monitor, num_epochs, n_trials
        self._ended: Counter[str] = Counter()
        self._best: Shown | None = None
        self._began = time.monotonic()
        self._is_waiting = False

    def show(self, members: Sequence[Shown]) -> None:
        self._is_waiting = False

    def ended(self, trial: Shown, state: str) -> None:
        self._ended[state] += 1
        if state == "complete" and self._is_better(trial):
            self._best = trial

    def _is_better(self, trial: Shown) -> bool:
        if trial.best is None or self._best is None or self._best.best is None:
            return trial.best is not None
        is_max = self._monitor[1] == "max"
        return trial.best > self._best.best if is_max else trial.best < self._best.best

    def _summary(self) -> str:
        counts = ", ".join(f"{number} {state}" for state, number in self._ended.items())
        total = sum(self._ended.values())
        line = f"{total} of {self._n_trials} trials ended here"
        line += f" ({counts})" if counts else ""
        if self._best is not None and self._best.best is not None:
            line += f", best {self._monitor[0]} {_number(self._best.best)}"
            line += f" in trial {self._best.number}"
        return f"{line}, {took(time.monotonic() - self._began)}"


class PlainLines(_Told):
    """A line for each trial that has ended."""

    def ended(self, trial: Shown, state: str) -> None:
        super().ended(trial, state)
        best = "" if trial.best is None else f", best {self._monitor[0]} {_number(trial.best)}"
        values = ", ".join(f"{n}={_number(v)}" for n, v in trial.hyperparameters.items())
        _say(f"trial {trial.number} {state} after epoch {trial.epoch}{best}: {values}")

    def waits(self) -> None:
        if not self._is_waiting:
            _say("waiting for the trials of other workers")
        self._is_waiting = True

    def __exit__(self, *of_error: Any) -> None:
        _say(self._summary())


class LiveTable(_Told):
    """A row for each member that trains, drawn anew after each epoch.

    Args:
        monitor: the metric that is optimized.
        num_epochs: of each trial.
        n_trials: of the study.
        console: where to draw.
    """

    def __init__(
        self, monitor: Monitor, num_epochs: int, n_trials: int, console: Console | None = None
    ) -> None:
        super().__init__(monitor, num_epochs, n_trials)
        self._members: Sequence[Shown] = ()
        self._console = console or Console(force_jupyter=False)
        self._live = Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *of_error: Any) -> None:
        """Gives the terminal back, with one line about the study."""
        self._live.stop()
        self._console.print(self._summary(), highlight=False)

    def show(self, members: Sequence[Shown]) -> None:
        super().show(members)
        self._members = tuple(members)

    def waits(self) -> None:
        self._is_waiting, self._members = True, ()

    def render(self) -> RenderableType:
        """The table as it is now, which fits the terminal."""
        summary = Text(self._summary(), style="dim", no_wrap=True, overflow="ellipsis")
        if self._is_waiting:
            summary.append("; waiting for the trials of other workers")
        if not self._members:
            return summary
        table = Table(box=box.SIMPLE_HEAD)
        names = list(dict.fromkeys(n for m in self._members for n in m.hyperparameters))
        for title in ("trial", "epoch", self._monitor[0], "best"):
            table.add_column(title, justify="right", no_wrap=True, style="bold" * (title == "best"))
        for name in names:
            table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
        room = max(3, self._console.height - BESIDE)
        ordered = sorted(self._members, key=self._order)
        for member in ordered[:room]:
            table.add_row(
                str(member.number),
                f"{member.epoch}/{self._num_epochs}",
                _number(member.value),
                _number(member.best),
                *(_number(member.hyperparameters.get(name, "")) for name in names),
            )
        if len(ordered) > room:
            table.add_row(f"+{len(ordered) - room}", "", "", "", *("" for _ in names))
        return Group(table, summary)

    def _order(self, member: Shown) -> tuple[bool, float]:
        """The best first, and those without a value last."""
        if member.best is None:
            return True, 0.0
        return False, -member.best if self._monitor[1] == "max" else member.best


def members_table(
    monitor: Monitor, num_epochs: int, n_trials: int, *, is_shown: bool
) -> MembersTable:
    """What suits where the output goes now."""
    if not is_shown or sys.stdout is None:
        return MembersTable()
    is_live = is_terminal(sys.stdout) and not is_taken()
    return (LiveTable if is_live else PlainLines)(monitor, num_epochs, n_trials)


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
