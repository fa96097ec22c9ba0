"""Campaigns against the promise that no run is lost, and a scoreboard of what they found.

    PYTHONPATH=. python benchmarks/reliability.py                      all, about an hour on 2 cores
    PYTHONPATH=. python benchmarks/reliability.py kill term --quick    a short version of some
    PYTHONPATH=. python benchmarks/reliability.py --seed 3 --write     and keep the scoreboard

Each campaign runs in a process of its own. The seed decides the instants, bits and steps.
"""

import argparse
import dataclasses
import datetime as dt
import importlib
import inspect
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from campaigns.children import in_child, use_compilation_cache
from campaigns.score import Score

from boltax import __version__

THREE_HOURS = 3 * 3600.0
CAMPAIGNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: function, its arguments, those of the short version
    "kill": ("interruptions.kill", {"times": 100}, {"times": 2}),
    "term": ("interruptions.term", {"times": 100}, {"times": 2}),
    "corruption": ("corruption.corrupt", {"flips": 20}, {"flips": 1}),
    "again": ("again.begin_again", {"times": 60}, {"times": 2}),
    "disk": ("disk.fill", {"saves": 12}, {"saves": 1}),
    "retention": ("retention.retain", {"sequences": 1000}, {"sequences": 20}),
    "hostile": ("hostile.load_all", {}, {}),
    "stall": (
        "stall.compare",
        {"megabytes": (50, 500), "rounds": 3},
        {"megabytes": (5,), "rounds": 1},
    ),
    "nonfinite": ("nonfinite.inject", {"times": 12}, {"times": 1}),
    "check": ("check_cost.compare", {"rounds": 9, "sizes": 2}, {"rounds": 1, "sizes": 1}),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Campaigns against the promise that no run is lost"
    )
    parser.add_argument("names", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--quick", action="store_true", help="a short version of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, help="so many runs of kill, term, again, nonfinite")
    parser.add_argument("--write", action="store_true", help="keep it in benchmarks/results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(CAMPAIGNS):
        parser.error(f"Received {sorted(unknown)}; expected some of {', '.join(CAMPAIGNS)}")
    use_compilation_cache()
    scores: list[Score] = []
    for name in options.names or CAMPAIGNS:
        function, whole, short = CAMPAIGNS[name]
        arguments = {"seed": options.seed, **(short if options.quick else whole)}
        if options.times:
            arguments["times"] = options.times
        scores.append(run(name, function, arguments))
        print("\n".join([table(scores[-1:]), *scores[-1].details, *scores[-1].failures]))
    print(f"\n{table(scores)}")
    if options.write:
        write(scores, options.seed)
    return any(score.failures for score in scores)


def run(name: str, function: str, arguments: dict[str, Any]) -> Score:
    """One campaign, in a child: this process has no JAX backend, so it and its child may fork.

    It gets those of the arguments that it knows.
    """
    module, _, call = function.partition(".")
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "score.json"), Path(folder, "log.txt")

        def work() -> None:
            campaign = getattr(importlib.import_module(f"campaigns.{module}"), call)
            known = inspect.signature(campaign).parameters
            score = campaign(**{k: value for k, value in arguments.items() if k in known})
            file.write_text(json.dumps(dataclasses.asdict(score)))

        status, seconds = in_child(work, longest=THREE_HOURS, log=log)
        if status:
            return Score(name, 0, "", "did not end", [f"{status=}: {log.read_text()[-3000:]}"])
        score = Score(**json.loads(file.read_text()))
    score.details.append(f"the campaign took {seconds:.0f} s")
    return score


def table(scores: list[Score]) -> str:
    """The scoreboard, in Markdown."""
    lines = ["| campaign | runs | result | target | passed |", "|---|---|---|---|---|"]
    for score in scores:
        passed = "no" if score.failures else "yes"
        lines.append(
            f"| {score.campaign} | {score.runs} | {score.result} | {score.target} | {passed} |"
        )
    return "\n".join(lines)


def write(scores: list[Score], seed: int) -> None:
    """Keeps the scoreboard beside those of other days and machines."""
    machine, today = f"cpu{os.cpu_count()}", dt.date.today().isoformat()
    versions = f"boltax {__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    lines = [
        f"# Reliability, {today}, {machine}",
        "",
        f"{versions}, {platform.system()}, {os.cpu_count()} cores, seed {seed}.",
        "",
        table(scores),
    ]
    for score in scores:
        found = [*score.details, *(f"FAILED {text}" for text in score.failures)]
        lines += ["", f"**{score.campaign}**", "", *(f"- {line}" for line in found)]
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{today}-reliability-{machine}.md"
    path.write_text("\n".join(lines) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
