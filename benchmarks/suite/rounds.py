"""A side's end of the talk with the driver: waits for each round, times it, and answers.

    driver  {"go": 1}                                   one round: train an epoch, then evaluate
    worker  {"ready": true, ...}                        once, when set up
    worker  {"train_seconds": ..., "loss": ..., ...}    after each round

JSON lines through stdin and stdout. A side calls `begin`, `trained`, `evaluated` in this order for
each round, the last two when the device is done.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


class NotOfferedError(Exception):
    """Raised by a side that does not take part in a task, or cannot read this kind of data."""


class Rounds:
    """The rounds of one side.

    Args:
        number: how many there will be, the first one for warming up included.
        max_steps: steps after which a side ends its first round, to time the first step; else None.
        answers: where to write.
        commands: where to read.
    """

    def __init__(
        self, number: int, max_steps: int | None, answers: TextIO, commands: TextIO
    ) -> None:
        self.number = number
        self.max_steps = max_steps
        self._answers, self._commands = answers, commands
        self._round: dict[str, Any] | None = None
        self._imported = self._went = self._began = time.perf_counter()
        self._usage = (0.0, 0.0)
        self._is_ready = False

    def imported(self, seconds: float) -> None:
        """Says how long the imports took; the clock of the first step starts."""
        self.answer(import_seconds=seconds)
        self._imported = time.perf_counter()

    def begin(self) -> None:
        """Answers for the round before, waits for the word to begin the next, starts the clock."""
        if not self._is_ready:
            self._is_ready = True
            self.answer(ready=True, setup_seconds=time.perf_counter() - self._imported)
        self.finish()
        if not self._commands.readline():
            os._exit(0)  # the driver has all that it wants: no library is to save or report now
        self._round = {}
        self._usage = _cpu_seconds()
        self._went = self._began = time.perf_counter()

    def trained(self, **values: Any) -> None:
        """Stops the clock of the training, and starts that of the evaluation."""
        now = time.perf_counter()
        others, own = (b - a for a, b in zip(self._usage, _cpu_seconds(), strict=True))
        seconds = now - self._began
        self.note(
            train_seconds=seconds,
            cpu_seconds=own,
            other_cores=max(0.0, others / seconds),
            since_import=now - self._imported,
            **values,
        )
        self._began = time.perf_counter()

    def evaluated(self, **values: Any) -> None:
        """Stops the clock of the evaluation."""
        self.note(eval_seconds=time.perf_counter() - self._began, **values)

    def note(self, **values: Any) -> None:
        """Adds to the answer: ``loss``, ``acc``, ``eval_loss``, ``eval_acc``."""
        assert self._round is not None
        self._round |= values

    def finish(self) -> None:
        """Answers for the round before, if there was one that has no answer yet."""
        if self._round is None:
            return
        answer, self._round = self._round, None
        whole = time.perf_counter() - self._went
        self.answer(**answer, whole_seconds=whole, rss_mb=rss_mb(), peak_mb=rss_mb("VmHWM"))

    def answer(self, **values: Any) -> None:
        """Writes a line to the driver."""
        self._answers.write(json.dumps(values, default=float) + "\n")
        self._answers.flush()


def talk_on_stdout() -> TextIO:
    """Standard output as the way to the driver; what anybody prints from now on joins the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def rss_mb(field: str = "VmRSS") -> float:
    """Memory of this process, or with ``VmHWM`` its peak; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), 0.0)


def _cpu_seconds() -> tuple[float, float]:
    """CPU time of all other processes together, and of this one."""
    own = time.process_time()
    try:
        user, nice, system, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0, own
    busy = (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return busy - own, own
