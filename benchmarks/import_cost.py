"""How long `import boltax` takes beside `import jax, flax, optax`, which it contains.

    python benchmarks/import_cost.py [--rounds 15] [--limit 1.10]

Each import runs in a fresh process; the two alternate, so that a machine that speeds up or slows
down meets both alike. The figure is the ratio of the medians. With `--limit` the exit code is 1
when the ratio is greater.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

STATEMENTS = {"peers": "import jax, flax, optax", "boltax": "import boltax"}
# Without garbage collection: a full one takes 50 ms, and falls due in whatever is imported last.
PROGRAM = (
    "import gc, time; gc.disable(); t = time.perf_counter(); {}; print(time.perf_counter() - t)"
)
ROOT = Path(__file__).resolve().parents[1]


def seconds(statement: str) -> float:
    """The wall time of one import statement in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Compiled files are written and read as after an installation.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def measure(rounds: int) -> dict[str, list[float]]:
    """Times of each statement, taken in turn; one round before that is not counted."""
    for statement in STATEMENTS.values():
        seconds(statement)
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    return times


def main() -> int:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=float)
    options = parser.parse_args()

    times = measure(options.rounds)
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, statement in STATEMENTS.items():
        low, high = min(times[name]), max(times[name])
        print(f"{statement:26} median {median[name]:.3f} s  ({low:.3f} to {high:.3f})")
    ratio = median["boltax"] / median["peers"]
    print(f"ratio of the medians       {ratio:.3f}  ({options.rounds} rounds)")
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("jax", "flax", "optax", "numpy")]
    cores = f"{os.cpu_count()} cores"
    print(
        f"Python {platform.python_version()}, {', '.join(versions)}, {platform.machine()}, {cores}"
    )
    return 1 if options.limit is not None and ratio > options.limit else 0


if __name__ == "__main__":
    sys.exit(main())
