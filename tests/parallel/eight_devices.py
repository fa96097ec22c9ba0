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
from boltax.tune import Population
from dummies import Classifier, Mlp, classes, loader

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "constant"}
EIGHT = bx.Parallel(
    mesh={"data": -1, "model": 2},
    fsdp="data",
    min_shard_bytes=0,
    rules=[("Dense_0/kernel$", (None, "model")), ("Dense_1/kernel$", ("model", None))],
)


def trainer(parallel: Any, folder: str, seed: int = 42, lr: float = 0.1) -> Any:
    return Classifier(
        Mlp,
        {},
        {**SGD, "lr": lr},
        exmp_input=classes(3),
        seed=seed,
        logger_params={"log_dir": folder, "logger_type": "none"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(log_every=2, steps_per_execution=1, sanity_check=False),
        parallel=parallel,
    )


def trained(
    parallel: Any, folder: str, *, epochs: int = 1, resume: bool = False, **options: Any
) -> Any:
    one = trainer(parallel, folder, **options)
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
    found["collectives"] = {
        name: trainer(parallel, name).preflight(classes(16)).collectives
        for name, parallel in (
            ("data", "data"),
            ("fsdp", bx.Parallel(fsdp="data", min_shard_bytes=0)),
        )
    }
    moved, _ = trained(bx.Parallel(devices=2), "spread", epochs=2, resume=True)
    return {**found, "apart": apart(alone, moved), "members": members()}


def members() -> dict[str, Any]:
    """64 members on eight devices, and five on four pairs of them, beside members in turn on one.

    Those in turn are bit for bit single runs, as other tests have it.
    """
    together: dict[str, Any] = {}
    for name, number, size, where in (
        ("turn", 64, 1, {"devices": 1}),
        ("each", 64, 8, {"parallel": bx.Parallel(mesh={"members": -1})}),
        ("pairs", 5, 1, {"parallel": bx.Parallel(mesh={"members": 4, "data": 2})}),
    ):
        own = [{"seed": seed, "lr": 0.01 * (seed % 7 + 1)} for seed in range(number)]
        together[name] = Population(trainer(None, name), own, members_per_step=size, **where)
        with jax.transfer_guard("disallow"):
            together[name].train_model(loader(37, 16, shuffle=True), loader(21, 8), num_epochs=1)
    turn, each, pairs = together.values()
    pair = bx.Parallel(mesh={"data": 2}, devices=2)
    single, metrics = trained(pair, "single", seed=4, lr=0.05)
    rows = turn.table.rows
    return {
        "each": max(apart(turn.member(n), each.member(n)) for n in range(0, 64, 9)),
        "of all": max(
            abs(a["val/loss"] - b["val/loss"]) for a, b in zip(rows, each.table.rows, strict=True)
        ),
        "groups": [sorted(d.id for d in devices_of(state)) for state in each._trainees.states],
        "pairs": max(apart(turn.member(n), pairs.member(n)) for n in range(5)),
        "single": apart(single, pairs.member(4)),
        "metrics": metrics["val/loss"] == pairs.table.rows[4]["val/loss"],
        "places": [sorted(d.id for d in devices_of(state)) for state in pairs._trainees.states],
    }


def devices_of(tree: Any) -> set[Any]:
    return jax.tree.leaves(tree)[0].sharding.device_set


if __name__ == "__main__":
    print(json.dumps(main()))
