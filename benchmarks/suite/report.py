"""What was measured as tables, and the refusal to compare sides that did not train alike.

A ratio of speeds means something only between sides that did the same work. All sides start from
weights of the same distributions, but not from the same weights, and shuffle in orders of their
own. After the same number of steps their losses have differed by up to 1 % on T1, 3 % on T3 and 5 %
on T2, early in the training; a side that learns nothing differs by more than half. `RELATIVE` and
`ABSOLUTE` lie in between.
"""

import math
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from suite.driver import QUIET_CORES, Timed
from suite.tasks import Task

REFERENCE = "hand"
RELATIVE, ABSOLUTE = 0.15, 0.05
PACKAGES = (
    "boltax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "keras", "kauldron",
    "grain", "torch", "lightning", "transformers", "accelerate",
)  # fmt: skip
HEADER = (
    "side", "steps/s", "ratio", "eval examples/s", "ratio", "whole epoch, s", "ratio",
    "peak MB", "import s", "start s", "loss", "eval loss",
)  # fmt: skip


def is_alike(loss: float, reference: float) -> bool:
    """Whether a loss is that of the same training; never where one of them is not finite."""
    is_near = abs(loss - reference) <= RELATIVE * reference + ABSOLUTE
    return is_near and math.isfinite(loss) and math.isfinite(reference)


def table(task: Task, results: Sequence[Timed]) -> str:
    """The sides of one task, in Markdown, with ratios to the reference where they are fair."""
    found = {result.side: result for result in results}
    reference = found.get(REFERENCE)
    if reference is not None and reference.missing:
        reference = None
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for result in results:
        if result.missing:
            lines.append(_line([result.side, result.missing, *[""] * (len(HEADER) - 2)]))
        else:
            lines.append(_line(_cells(task, result, reference)))
    return "\n".join(lines)


def _cells(task: Task, result: Timed, reference: Timed | None) -> list[str]:
    examples = task.batch * task.eval_batches
    steps = statistics.median(task.steps / one["train_seconds"] for one in result.rounds)
    evaluated = statistics.median(examples / one["eval_seconds"] for one in result.rounds)
    last = result.rounds[-1]
    return [
        f"**{result.side}**" if result is reference else result.side,
        f"{steps:.1f}" if steps < 100 else f"{steps:.0f}",
        ratio(result, reference, "train_seconds", "loss"),
        f"{evaluated:.0f}",
        ratio(result, reference, "eval_seconds", "eval_loss"),
        f"{_median(result, 'whole_seconds'):.2f}",
        ratio(result, reference, "whole_seconds", "loss"),
        f"{last['peak_mb']:.0f}",
        f"{result.import_seconds:.1f}",
        f"{result.first['since_import']:.1f}",
        f"{last['loss']:.3f}",
        f"{last['eval_loss']:.3f}",
    ]


def ratio(result: Timed, reference: Timed | None, seconds: str, loss: str) -> str:
    """How many times as fast as the reference: the median over the rounds; or why not to say."""
    if reference is None:
        return "no reference"
    mine, its = result.rounds[-1], reference.rounds[-1]
    if mine.get("steps", its["steps"]) != its["steps"]:
        return f"refused: {mine['steps']} steps, {REFERENCE} {its['steps']}"
    if not is_alike(mine[loss], its[loss]):
        return f"refused: {loss} {mine[loss]:.3f}, {REFERENCE} {its[loss]:.3f}"
    pairs = zip(reference.rounds, result.rounds, strict=True)
    return f"{statistics.median(a[seconds] / b[seconds] for a, b in pairs):.2f}"


def other_work(results: Sequence[Timed]) -> str:
    """How busy others kept the machine while the rounds ran."""
    cores = [one["other_cores"] for result in results for one in result.rounds]
    if not cores:
        return ""
    typical = statistics.median(cores)
    found = f"Other work meanwhile: {typical:.2f} cores in the median of the rounds, "
    found += f"{max(cores):.2f} at most."
    return found if typical <= QUIET_CORES else f"{found} **Too much for a measurement.**"


def facts() -> str:
    """The machine and the versions."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _median(result: Timed, key: str) -> float:
    values = [one[key] for one in result.rounds if not math.isnan(one[key])]
    return statistics.median(values) if values else math.nan


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
