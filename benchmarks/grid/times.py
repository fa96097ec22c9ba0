"""How long a step takes with each optimizer: they take turns, so that all are disturbed alike.

The times of the trainings themselves would not do: on a machine that others use they differ by more
than the optimizers do.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boltax.checkpoint._files import write_json
from boltax.demo import DemoData
from grid.arms import Arm, Setup
from grid.cells import loader, make_trainer

ROUNDS = 8


@dataclass(frozen=True)
class StepTime:
    """Of one optimizer's step.

    Attributes:
        wall: seconds in the fastest of the rounds, which other work disturbed least.
        cores: seconds of all cores, in the median of the rounds.
    """

    wall: float
    cores: float


def step_times(
    setup: Setup, arms: Sequence[Arm], images: DemoData, file: Path, rounds: int = ROUNDS
) -> dict[str, StepTime]:
    """The time of each optimizer by its name, out of the file or measured."""
    plain = [arm for arm in arms if not arm.regularizer]
    asked = {"setup": json.loads(json.dumps(dataclasses.asdict(setup))), "rounds": rounds}
    asked["optimizers"] = [arm.optimizer for arm in plain]
    try:
        stored = json.loads(file.read_text())
    except (OSError, ValueError):
        stored = {}
    if stored.get("asked") != asked:
        stored = {"asked": asked, "found": _measure(setup, plain, images, rounds)}
        write_json(file, stored)
    return {name: StepTime(**found) for name, found in stored["found"].items()}


def _measure(
    setup: Setup, arms: Sequence[Arm], images: DemoData, rounds: int
) -> dict[str, dict[str, float]]:
    """Wall and CPU time of a step; a round is a pass over a quarter of the training images."""
    part = dataclasses.replace(images, train=tuple(array[::4] for array in images.train))
    batches = loader(setup, part, seed=0)
    times: dict[str, list[tuple[float, float]]] = {arm.optimizer: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        trainers: dict[str, Any] = {
            arm.optimizer: make_trainer(setup, arm, 0, part, folder) for arm in arms
        }
        for trainer in trainers.values():
            trainer.init_optimizer(rounds + 1, len(batches))
            trainer.train_epoch(batches)  # compiles
        for _ in range(rounds):
            for name, trainer in trainers.items():
                wall, cores = time.monotonic(), time.process_time()
                trainer.train_epoch(batches)
                times[name].append((time.monotonic() - wall, time.process_time() - cores))
    return {
        name: {
            "wall": min(wall for wall, _ in found) / len(batches),
            "cores": statistics.median(cores for _, cores in found) / len(batches),
        }
        for name, found in times.items()
    }
