"""What one of several processes does, started as a launcher starts it; prints JSON at its end.

python several.py <scenario> <folder>      with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import boltax as bx
from boltax.data import ArrayLoader, Divided
from boltax.parallel import _processes
from dummies import Classifier, Mlp, classes, loader

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "constant"}
SHARDED = bx.Parallel(mesh={"data": -1}, fsdp="data", min_shard_bytes=0)
_processes.HEARTBEAT_SECONDS, _processes.SHUTDOWN_SECONDS = 10, 5


def trainer(folder: str, *, parallel: Any = SHARDED, **changes: Any) -> Any:
    return Classifier(
        **{
            "model_class": Mlp,
            "model_hparams": {},
            "optimizer_hparams": SGD,
            "exmp_input": classes(3),
            "logger_params": {"log_dir": folder, "logger_type": "csv"},
            "enable_progress_bar": False,
            "loop": bx.LoopOptions(log_every=2, sanity_check=False),
            "parallel": parallel,
            **changes,
        }
    )


def numbers(one: Any) -> list[float]:
    """Sums over all parameters, exactly, which every process sees."""
    return [float(np.asarray(jax.numpy.sum(leaf))) for leaf in jax.tree.leaves(one.state.params)]


def train(folder: str) -> dict[str, Any]:
    """An ordinary run, and what is asked of it afterwards."""
    one = trainer(folder)
    metrics = one.train_model(loader(37, 16, shuffle=True), loader(21, 8), num_epochs=2)
    predicted = one.predict_model(loader(21, 8))
    again = Classifier.load_from_checkpoint(folder, parallel=SHARDED)
    return {
        "metrics": metrics,
        "sums": numbers(one),
        "predicted": np.asarray(predicted).tolist(),
        "loaded": again.eval_model(loader(21, 8)),
        "specs": [str(x.sharding.spec) for x in jax.tree.leaves(one.state.params)],
        **data(folder + "-data"),
    }


def data(folder: str) -> dict[str, Any]:
    """Loaders of other kinds than arrays in memory, in their two ways."""
    index, found = jax.process_index(), {}
    one = trainer(folder, loop=bx.LoopOptions(sanity_check=False))
    one.train_model(loader(32, 16), num_epochs=1)
    images, labels = classes(21)
    whole = [(images[i : i + 8], labels[i : i + 8]) for i in range(0, 21, 8)]
    found["whole"] = one.eval_model(whole)
    # 13 examples here, 8 there, in batches of 4 and 4: the last ones have one example, and none
    part = slice(0, 13) if index == 0 else slice(13, 21)
    if jax.process_count() == 1:
        part = slice(0, 21)
    mine = Divided(ArrayLoader((images[part], labels[part]), batch_size=4))
    found["divided"] = one.eval_model(mine)
    found["arrays"] = one.eval_model(ArrayLoader((images, labels), batch_size=8))
    found["order"] = np.asarray(one.predict_model(mine)).tolist()
    found["straight"] = np.asarray(one.predict_model(whole)).tolist()
    try:
        one.eval_model(whole if index == 0 else whole[1:])
    except bx.errors.DataError as error:
        found["different"] = str(error)
    return found


class Slow(bx.callbacks.Callback):
    """Gives signals time to come, and one process something to fail at."""

    def __init__(self, event: str, step: int) -> None:
        self.event, self.step = event, step

    def next_step(self, step: int) -> int:
        return step + 1

    def on_step_end(self, view: Any) -> None:
        time.sleep(0.02)
        if view.step != self.step:
            return
        if self.event == "both":
            raise ValueError("the same in all")
        if jax.process_index() == 1 and self.event == "fail":
            raise ValueError("a file is missing on this machine")
        if jax.process_index() == 1 and self.event in ("term", "kill"):
            os.kill(os.getpid(), {"term": signal.SIGTERM, "kill": signal.SIGKILL}[self.event])


def interrupted(event: str, step: int, folder: str) -> dict[str, Any]:
    one = trainer(
        folder,
        callbacks=[Slow(event, step)],
        checkpoint=bx.CheckpointOptions(every_steps=2),
    )
    one.train_model(loader(37, 16, shuffle=True), loader(21, 8), num_epochs=4, resume=True)
    rows = [{n: v for n, v in row.items() if "time" not in n} for row in one.run.history]
    return {"sums": numbers(one), "steps": int(one.state.step), "history": rows}


def main(scenario: str, folder: str) -> dict[str, Any]:
    bx.parallel.initialize()
    if scenario == "train":
        return train(folder)
    event, step = scenario.split("@")
    return interrupted(event, int(step), folder)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
