"""The process of one side: ``python -m suite.worker SIDE TASK [--rounds N] ...``, see `rounds`."""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

from suite.rounds import NotOfferedError, Rounds, talk_on_stdout  # noqa: E402
from suite.tasks import TASKS  # noqa: E402

OWN = ("suite", "boltax")
SIDES = {
    "hand_plain": "suite.side_hand:plain",
    "hand": "suite.side_hand:donated",
    "hand_kept": "suite.side_kept:donated",
    "hand_scan": "suite.side_hand:fused",
    "guide": "suite.side_guide:run",
    "boltax": "suite.side_boltax:linen",
    "boltax_nnx": "suite.side_boltax_nnx:run",
    "keras": "suite.side_keras:run",
    "keras_32": "suite.side_keras:fused",
    "kauldron": "suite.side_kauldron:run",
    "torch": "suite.side_torch:run",
    "lightning": "suite.side_lightning:run",
    "hf": "suite.side_hf:run",
}
"""Each side's function, ``run(task, rounds, data, folder)``. Another one is ``module:function``."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("task")
    parser.add_argument("--data", default="memory")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--max-steps", type=int)
    options = parser.parse_args()
    rounds = Rounds(options.rounds, options.max_steps, talk_on_stdout(), sys.stdin)
    try:
        run = find(options.side)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in OWN:
            raise
        rounds.answer(missing=f"not installed: {error.name}")
        return
    rounds.imported(time.perf_counter() - BEGAN)
    try:
        with tempfile.TemporaryDirectory(prefix="run-", dir=".") as folder:
            task = TASKS[options.task].shortened(options.steps)
            run(task, rounds, options.data, Path(folder).resolve())
            rounds.finish()
    except ModuleNotFoundError as error:  # some packages import others late
        rounds.answer(missing=f"not installed: {error.name}")
    except NotOfferedError as error:
        rounds.answer(missing=str(error))


def find(side: str) -> Any:
    """The function of a side; imports all that it needs."""
    module, _, function = SIDES.get(side, side).partition(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    main()
