"""From the imports of the training code to the end of its first step; and the same once more.

The second start finds what the first one has compiled, where there is a cache: boltax sets one up
by itself, the loop written by hand gets JAX's in a row of its own. Each pair of starts has an empty
cache. Making the data counts, and is the same for all.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.driver import Worker, WorkerError

HAND_CACHED = "hand, with JAX's cache"


def table(task: str, sides: Sequence[str], *, repeats: int, say: Any = print) -> str:
    """Both times for each side, in Markdown: medians over repeats, in alternation.

    Args:
        task: its name.
        sides: of `worker.SIDES`.
        repeats: pairs of starts.
        say: told what goes on.
    """
    rows = [row for side in sides for row in ([side, HAND_CACHED] if side == "hand" else [side])]
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {row: [] for row in rows}
    problems: dict[str, str] = {}
    for number in range(repeats):
        for row in rows if number % 2 == 0 else rows[::-1]:
            if row in problems:
                continue
            say(f"{task}: starting {row} twice, {number + 1} of {repeats}")
            try:
                found[row].append(_pair(row, task))
            except WorkerError as error:
                problems[row] = str(error)
    lines = [
        "| side | first step, s | second start, s | import, s | peak MB |",
        "|---|---|---|---|---|",
    ]
    for row, pairs in found.items():
        if row in problems:
            lines.append(f"| {row} | {problems[row]} | | | |")
            continue
        cells = [_median([pair[0]["since_import"] for pair in pairs])]
        cells.append(_median([pair[1]["since_import"] for pair in pairs]))
        cells.append(_median([one["import_seconds"] for pair in pairs for one in pair]))
        peak = statistics.median(pair[0]["peak_mb"] for pair in pairs)
        lines.append(f"| {row} | {' | '.join(cells)} | {peak:.0f} |")
    return "\n".join(lines)


def _pair(row: str, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="boltax-speed-", ignore_cleanup_errors=True) as folder:
        cache = Path(folder, "cache")
        environment: dict[str, str] = {}
        if row == HAND_CACHED:
            environment = {
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            }
        side = "hand" if row == HAND_CACHED else row
        return _start(side, task, folder, environment), _start(side, task, folder, environment)


def _start(side: str, task: str, folder: str, environment: Mapping[str, str]) -> dict[str, Any]:
    worker = Worker(side, task, ["--rounds", "1", "--max-steps", "1"], Path(folder), environment)
    try:
        worker.start()
        answer = worker.round()
    finally:
        worker.stop()
    if "since_import" not in answer:
        raise WorkerError("does not say when its first step ends")
    return {**answer, "import_seconds": worker.timed.import_seconds}


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}"
