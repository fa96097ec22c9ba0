"""Whether a long run stays as fast, and as small, as it began: 100,000 steps of a tiny model."""

import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from suite.driver import Worker

SIDE, TASK = "suite.side_boltax:long", "T1s"


def table(steps: int) -> str:
    """Seconds and memory of a run, thousand by thousand, in Markdown.

    Args:
        steps: how many; at least 3,000.
    """
    with tempfile.TemporaryDirectory(prefix="boltax-speed-", ignore_cleanup_errors=True) as folder:
        worker = Worker(SIDE, TASK, ["--max-steps", str(steps)], Path(folder))
        try:
            worker.start()
            answer = worker.round()
        finally:
            worker.stop()
    seconds = [after - before for before, after in pairwise(answer["times"])]
    return "\n\n".join((_summary(seconds, answer["memory"][1:]), _rows(seconds, answer["memory"])))


def _summary(seconds: Sequence[float], memory: Sequence[float]) -> str:
    tenth = max(1, len(seconds) // 10)
    early = statistics.median(seconds[1 : 1 + tenth])
    late = statistics.median(seconds[-tenth:])
    return (
        f"Last thousand against the second: time {seconds[-1]:.3f} s against {seconds[1]:.3f} s, "
        f"ratio {seconds[-1] / seconds[1]:.2f}; memory {memory[-1]:.0f} MB against "
        f"{memory[1]:.0f} MB. Medians of the last and the first {tenth} thousands: {late:.3f} s, "
        f"{early:.3f} s, ratio {late / early:.2f}. "
        "A thousand takes longer where an epoch ends in it."
    )


def _rows(seconds: Sequence[float], memory: Sequence[float]) -> str:
    lines = ["| steps | s | MB |", "|---|---|---|"]
    tenth = max(1, len(seconds) // 20)
    shown = sorted({0, 1, *range(tenth - 1, len(seconds), tenth), len(seconds) - 1})
    lines += [f"| {i + 1},000 | {seconds[i]:.3f} | {memory[i + 1]:.0f} |" for i in shown]
    return "\n".join(lines)
