"""A training in one of several processes, as a launcher starts them; prints JSON when it ends.

    python several.py <what> <folder>      in the environment that torchrun, say, would set
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import boltax as bx
from dummies import Classifier, Mlp, classes, loader

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "constant"}


def trained(parallel: Any, folder: str, *, epochs: int = 1, resume: bool = False) -> Any:
    one = Classifier(
        Mlp,
        {},
        SGD,
        exmp_input=classes(3),
        logger_params={"log_dir": folder, "logger_type": "csv"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(log_every=2, sanity_check=False),
        parallel=parallel,
    )
    metrics = one.train_model(
        loader(37, 16, shuffle=True), loader(21, 8), num_epochs=epochs, resume=resume
    )
    return one, metrics


def main(what: str, folder: str) -> dict[str, Any]:
    bx.parallel.initialize()
    one, metrics = trained(what, folder, epochs=2)
    predicted = one.predict_model(loader(21, 8))
    return {
        "index": jax.process_index(),
        "metrics": metrics,
        "sum": float(np.abs(predicted).sum()),
        "folder": one.log_dir,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
