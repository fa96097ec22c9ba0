"""The grid as tables in Markdown: results, and which differences three seeds can tell.

Seeds are paired: with the same one, two arms start from the same parameters and see the same images
in the same order. Intervals are those of Student's t, for 95 %: with three seeds 2.5 standard
deviations on each side.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from scipy import stats

from grid.arms import Arm
from grid.cells import Cell
from grid.times import StepTime

REFERENCES = ("Adam", "SGD + momentum")
Cells = Mapping[str, Sequence[Cell]]
"""The cells of each arm, by the arm's name."""


def results(arms: Sequence[Arm], cells: Cells, times: Mapping[str, StepTime]) -> str:
    """A line for each arm; the times are those of the optimizers."""
    header = (
        "optimizer", "regularisation", "seeds", "training loss", "test loss", "test accuracy, %",
        "ms per step", "CPU ms per step",
    )  # fmt: skip
    lines = [_line(header), _line(["---"] * len(header))]
    for arm in arms:
        finished = [cell for cell in cells[arm.name] if not cell.failure]
        seeds = f"{len(finished)} of {len(cells[arm.name])}"
        columns = ["-"] * 5
        if finished:
            step = times[arm.optimizer]
            columns = [
                _spread([cell.train_loss[-1] for cell in finished], 3),
                _spread([cell.test["loss"] for cell in finished], 3),
                _spread([100 * cell.test["acc"] for cell in finished], 1),
                f"{1000 * step.wall:.1f}",
                f"{1000 * step.cores:.1f}",
            ]
        lines.append(_line([arm.optimizer, arm.regularizer or "none", seeds, *columns]))
    return "\n".join(lines)


def differences(arms: Sequence[Arm], cells: Cells) -> str:
    """What regularisation changes, and how the optimizers differ from the references."""
    header = ("comparison", "training loss", "test loss", "test accuracy, points")
    lines = [_line(header), _line(["---"] * len(header))]
    plain = {arm.optimizer: arm for arm in arms if not arm.regularizer}
    pairs = list[tuple[Arm, Arm]]()
    for number, reference in enumerate(REFERENCES):
        done = REFERENCES[: number + 1]
        others = [arm for name, arm in plain.items() if name not in done and reference in plain]
        pairs += [(arm, plain[reference]) for arm in others]
    pairs += [(arm, plain[arm.optimizer]) for arm in arms if arm.regularizer]
    for arm, other in pairs:
        columns = [
            difference([paired[number] for paired in _pairs(cells[arm.name], cells[other.name])])
            for number in range(3)
        ]
        lines.append(_line([f"{arm.label} against {other.label}", *columns]))
    return "\n".join(lines)


def difference(found: Sequence[float]) -> str:
    """Mean and half of the 95 % interval; bold where the interval leaves out 0."""
    if len(found) < 2:
        return "-"
    mean = statistics.mean(found)
    error = statistics.stdev(found) / math.sqrt(len(found))
    half = float(stats.t.ppf(0.975, len(found) - 1)) * error
    text = f"{mean:+.3f} ± {half:.3f}"
    return f"**{text}**" if abs(mean) > half else text


def _pairs(some: Sequence[Cell], others: Sequence[Cell]) -> list[tuple[float, float, float]]:
    """Differences of training loss, test loss and test accuracy (in points), seed by seed."""
    found = {cell.seed: cell for cell in others if not cell.failure}
    return [
        (
            cell.train_loss[-1] - other.train_loss[-1],
            cell.test["loss"] - other.test["loss"],
            100 * (cell.test["acc"] - other.test["acc"]),
        )
        for cell in some
        if not cell.failure and (other := found.get(cell.seed)) is not None
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _line(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |"
