"""Times the same side of two checkouts in alternation: is a change slower than what was there?

    git worktree add ../before main~1
    python benchmarks/beside.py ../before --tasks T1s,T1 --rounds 7

Each checkout has a process of its own with its own suite, and only one works at a time. The ratio
is that of seconds in a round, this checkout's over the other's: the median over rounds.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from suite.driver import BENCHMARKS, Worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the root of the other checkout")
    parser.add_argument("--tasks", default="T1s,T1")
    parser.add_argument("--side", default="boltax")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    roots = {"this": BENCHMARKS.parent, "other": options.other.resolve()}
    print("| task | this, s | other, s | ratio | evaluation, ratio | peak MB, this and other |")
    print("|---|---:|---:|---:|---:|---:|")
    for task in options.tasks.split(","):
        print(row(task, options.side, options.rounds, roots), flush=True)


def row(task: str, side: str, rounds: int, roots: dict[str, Path]) -> str:
    """The line of a task."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
    arguments = ["--rounds", str(rounds + 2)]
    with tempfile.TemporaryDirectory() as folder:
        workers = {
            name: started(side, task, arguments, Path(folder, name), root)
            for name, root in roots.items()
        }
        try:
            for worker in workers.values():
                worker.start()
                worker.round()  # it compiles
            for number in range(rounds):
                for name in roots if number % 2 == 0 else reversed(roots):
                    found[name].append(workers[name].round())
        finally:
            for worker in workers.values():
                worker.stop()
    medians = {name: statistics.median(r["train_seconds"] for r in found[name]) for name in roots}
    ratios = {
        part: statistics.median(
            a[part] / b[part] for a, b in zip(found["this"], found["other"], strict=True)
        )
        for part in ("train_seconds", "eval_seconds")
    }
    peaks = ", ".join(f"{found[name][-1]['peak_mb']:.0f}" for name in roots)
    return (
        f"| {task} | {medians['this']:.3f} | {medians['other']:.3f} | "
        f"{ratios['train_seconds']:.3f} | {ratios['eval_seconds']:.3f} | {peaks} |"
    )


def started(side: str, task: str, arguments: list[str], folder: Path, root: Path) -> Worker:
    """The process of a checkout."""
    folder.mkdir()
    paths = os.pathsep.join([str(root / "benchmarks"), str(root)])
    return Worker(side, task, arguments, folder, environment={"PYTHONPATH": paths})


if __name__ == "__main__":
    main()
