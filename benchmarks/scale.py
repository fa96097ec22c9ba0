"""Runs on several devices and in several processes, against a run on one; and what ends a process.

    PYTHONPATH=. python benchmarks/scale.py                     all, about half an hour on 2 cores
    PYTHONPATH=. python benchmarks/scale.py --times 1 --write   a short version, which is kept

Devices are those that a CPU pretends to have: they say whether numbers are right and runs survive,
and nothing of speed.
"""

import argparse
import datetime as dt
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from boltax import __version__

CHILD = Path(__file__).parent / "campaigns" / "one_of_several.py"
LONGEST = 300.0
STEPS = 50
"""Steps of the whole training."""
SHAPES = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4))
"""Processes, and devices of each."""
MOVES = (((1, 8), (2, 1)), ((2, 2), (1, 1)), ((2, 2), (1, 4)), ((1, 2), (2, 2)), ((2, 1), (2, 4)))
EVENTS = ("kill", "raise", "term", "stop")


class Ended(NamedTuple):
    """How the processes of a job have ended.

    Attributes:
        codes: the status of each.
        found: what the first one printed; None for nothing.
        seconds: from what was done to one of them to the end of the last.
        text: what they said.
    """

    codes: list[int]
    found: Any
    seconds: float
    text: str


def job(shape: tuple[int, int], folder: Path, **given: Any) -> Ended:
    """Trains in so many processes with so many devices each."""
    count, devices = shape
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder.parent.mkdir(parents=True, exist_ok=True)
    logs = [folder.parent / f"{folder.name}-{index}.log" for index in range(count)]
    processes: list[subprocess.Popen[str]] = []
    for index, log in enumerate(logs):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "RANK": str(index),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, str(CHILD), json.dumps({"folder": str(folder), **given})]
        with log.open("w") as file:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=file, stderr=file, text=True)
            )
    ends, until = dict[int, float](), time.monotonic() + LONGEST
    is_stopped = given.get("event") == "stop"
    while len(ends) < count and time.monotonic() < until:
        for index, process in enumerate(processes):
            if index not in ends and process.poll() is not None:
                ends[index] = time.time()
        if is_stopped and len(ends) == count - 1:
            break  # the one that stands still
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.wait()
    text = "\n".join(log.read_text() for log in logs)
    lines = [line for line in logs[0].read_text().splitlines() if line.startswith("{")]
    sign = folder.with_name(f"{folder.name}.event")
    begun = float(sign.read_text()) if sign.exists() else time.time()
    seconds = max(ends.values(), default=begun) - begun
    codes = [process.returncode for process in processes]
    return Ended(codes, json.loads(lines[-1]) if lines else None, seconds, text)


def whole(ended: Ended) -> dict[str, Any]:
    """What a job has found that had to come to its end."""
    if any(ended.codes) or ended.found is None:
        raise SystemExit(f"an undisturbed training ended with {ended.codes}:\n{ended.text}")
    return ended.found


def apart(one: dict[str, Any], other: dict[str, Any]) -> str:
    """How far two runs are from each other."""
    params = np.abs(np.array(one["params"]) - np.array(other["params"])).max()
    return f"{abs(one['loss'] - other['loss']):.0e} | {params:.0e}"


def equality(folder: Path) -> tuple[list[str], dict[Any, dict[str, Any]]]:
    """The same training on other devices and processes."""
    reference = whole(job((1, 1), folder / "one", parallel="none"))
    lines = [
        "| processes x devices | placement | loss apart | parameters apart | step ms | word ms |",
        "|---|---|---|---|---|---|",
    ]
    found: dict[Any, dict[str, Any]] = {}
    for parallel in ("data", "fsdp"):
        for shape in SHAPES[1:]:
            one = whole(job(shape, folder / f"{parallel}-{shape}", parallel=parallel))
            found[parallel, shape] = one
            name = f"{shape[0]} x {shape[1]}"
            lines.append(
                f"| {name} | {parallel} | {apart(one, reference)} | {one['step_ms']:.1f} | "
                f"{one['exchange_ms']:.1f} |"
            )
    return lines, {**found, "one": reference}


def moves(folder: Path, reference: dict[str, Any]) -> list[str]:
    """Stopped on some devices and processes, and gone on with on others."""
    lines = ["| saved on | gone on with on | loss apart | parameters apart |", "|---|---|---|---|"]
    for first, second in MOVES:
        place = folder / f"{first}-{second}"
        whole(job(first, place, parallel="fsdp", max_steps=23))
        one = whole(job(second, place, parallel="fsdp"))
        assert one["step"] == STEPS
        names = " | ".join(f"{shape[0]} x {shape[1]}" for shape in (first, second))
        lines.append(f"| {names} | {apart(one, reference)} |")
    return lines


def faults(folder: Path, times: int, seed: int) -> list[str]:
    """What ends one of two processes, at random steps; then all start again."""
    chance = random.Random(seed)
    shape = (2, 2)
    undisturbed = whole(job(shape, folder / "undisturbed"))["digest"]
    lines = [
        "| what happens to one of two | times | slowest to leave (s) | went on | bitwise |",
        "|---|---|---|---|---|",
    ]
    for event in EVENTS:
        slowest, went_on, same = 0.0, 0, 0
        for number in range(times):
            place, step = folder / f"{event}-{number}", chance.randrange(2, STEPS - 2)
            ended = job(shape, place, event=event, step=step)
            slowest = max(slowest, ended.seconds)
            if not all(ended.codes):
                raise SystemExit(f"{event} at step {step}: {ended.codes}\n{ended.text}")
            again = job(shape, place)
            went_on += not any(again.codes)
            same += again.found is not None and again.found["digest"] == undisturbed
        lines.append(f"| {event} | {times} | {slowest:.1f} | {went_on} | {same} |")
        print(lines[-1], flush=True)
    return lines


def main() -> int:
    """Prints the tables, and keeps them where that is asked for."""
    parser = argparse.ArgumentParser(description="Runs on several devices and processes")
    parser.add_argument("--times", type=int, default=20, help="so many runs of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep it in benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        equal, found = equality(Path(place, "equality"))
        print("\n".join(equal), flush=True)
        moved = moves(Path(place, "moves"), found["one"])
        print("\n".join(moved), flush=True)
        ended = faults(Path(place, "faults"), options.times, options.seed)
    machine, today = f"cpu{os.cpu_count()}", dt.date.today().isoformat()
    about = (
        f"boltax {__version__}, jax {jax.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, seed {options.seed}. Dense layers with BatchNorm and dropout, "
        f"SGD with momentum, {STEPS} steps of 32 examples; the devices are pretended."
    )
    text = [
        f"# Several devices and processes, {today}, {machine}",
        "",
        about,
        "",
        "Against one device:",
        "",
        *equal,
        "",
        "Saved at step 23, gone on with elsewhere; against one device:",
        "",
        *moved,
        "",
        "Faults:",
        "",
        *ended,
    ]
    if options.write:
        path = Path(__file__).parent / "results" / f"{today}-scale-{machine}.md"
        path.write_text("\n".join(text) + "\n")
        print(f"written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
