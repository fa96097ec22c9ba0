"""One process of `benchmarks/scale.py`: trains a small model, and prints what it has come to.

python one_of_several.py '{"folder": ..., "parallel": ..., "event": ..., "step": ...}'
"""

import hashlib
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import boltax as bx
from boltax.parallel._group import group

SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "schedule": "constant"}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


class Net(nn.Module):
    """Dense layers with BatchNorm and dropout."""

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(64)(x))
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(8)(x)


class Classifier(bx.TrainerModule):
    """Of clouds of points."""

    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        inputs, labels = batch
        logits = model(inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


class Events(bx.callbacks.Callback):
    """What happens to the last process at a step, and how long steps take."""

    def __init__(self, event: str, step: int, sign: str) -> None:
        self.event, self.step, self.sign = event, step, sign
        self.times = list[float]()

    def next_step(self, step: int) -> int:
        return step + 1

    def on_step_end(self, view: Any) -> None:
        self.times.append(time.perf_counter())
        if view.step != self.step or jax.process_index() != jax.process_count() - 1:
            return
        if self.event:
            Path(self.sign).write_text(str(time.time()))
        if self.event == "raise":
            raise ValueError("a file is missing on this machine")
        if self.event in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.event])


def digest(tree: Any) -> str:
    """Of all bytes of a tree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def exchange_ms() -> float:
    """A word from each process to all, in milliseconds."""
    processes, times = group(), list[float]()
    for _ in range(50):
        begun = time.perf_counter()
        processes.exchange("nothing", processes.index)
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Trains as it is told."""
    bx.parallel.initialize()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 1003).astype(np.int32)
    points = (3.0 * np.eye(8, 16)[labels] + rng.normal(size=(1003, 16))).astype(np.float32)
    train = bx.data.ArrayLoader((points[:800], labels[:800]), 32, shuffle=True)
    val = bx.data.ArrayLoader((points[800:], labels[800:]), 32)
    events = Events(given.get("event", ""), given.get("step", 0), given["folder"] + ".event")
    kinds = {
        "fsdp": bx.Parallel(fsdp="data", min_shard_bytes=0),
        "data": "data",
        "none": None,
    }
    one = Classifier(
        Net,
        {},
        SGD,
        exmp_input=next(iter(train)),
        parallel=kinds[given.get("parallel", "data")],
        callbacks=[events],
        logger_params={"log_dir": given["folder"], "logger_type": "csv"},
        checkpoint=bx.CheckpointOptions(every_steps=5),
        enable_progress_bar=False,
    )
    metrics = one.train_model(
        train, val, num_epochs=2, max_steps=given.get("max_steps"), resume=True
    )
    params = one._made.placement.to_host(one.state.params)
    return {
        "loss": metrics["val/loss"],
        "digest": digest(params),
        "params": [float(x) for leaf in jax.tree.leaves(params) for x in np.ravel(leaf)],
        "step": int(one.state.step),
        "step_ms": 1000 * float(np.median(np.diff(events.times[-40:]))) if events.times else 0.0,
        "exchange_ms": exchange_ms(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
