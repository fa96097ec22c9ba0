"""What takes more devices than the tests have: run in a process with eight, prints JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import boltax as bx
from boltax.parallel._table import bytes_on_each
from dummies import Classifier, Mlp, classes, loader

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "constant"}
EIGHT = bx.Parallel(
    mesh={"data": -1, "model": 2},
    fsdp="data",
    min_shard_bytes=0,
    rules=[("Dense_0/kernel$", (None, "model")), ("Dense_1/kernel$", ("model", None))],
)


def trained(parallel: Any, folder: str, *, epochs: int = 1, resume: bool = False) -> Any:
    one = Classifier(
        Mlp,
        {},
        SGD,
        exmp_input=classes(3),
        logger_params={"log_dir": folder, "logger_type": "none"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(log_every=2, steps_per_execution=1, sanity_check=False),
        parallel=parallel,
    )
    data = loader(37, 16, shuffle=True)
    with jax.transfer_guard("disallow"):
        metrics = one.train_model(data, loader(21, 8), num_epochs=epochs, resume=resume)
    return one, metrics


def apart(one: Any, other: Any) -> float:
    left, right = (jax.tree.leaves(jax.device_get(each.state.params)) for each in (one, other))
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))


def specs(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(
            p, simple=True, separator="/"
        ): f"PartitionSpec{tuple(x.sharding.spec)}"
        for p, x in leaves
    }


def main() -> dict[str, Any]:
    alone, _ = trained(None, "alone", epochs=2)
    spread, metrics = trained(EIGHT, "spread")
    loaded = Classifier.load_from_checkpoint("spread", parallel=None)
    reference = loaded.eval_model(loader(21, 8))
    found = {
        "specs": specs(spread.state.params),
        "bytes": [bytes_on_each(spread.state.params), bytes_on_each(loaded.state.params)],
        "acc": [reference["acc"], metrics["val/acc"]],
        "loss": [reference["loss"], metrics["val/loss"]],
    }
    moved, _ = trained(bx.Parallel(devices=2), "spread", epochs=2, resume=True)
    return {**found, "apart": apart(alone, moved)}


if __name__ == "__main__":
    print(json.dumps(main()))
