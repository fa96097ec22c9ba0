"""The run that the campaigns interrupt, damage and poison, and the digest of what it leaves.

It has all that makes resuming hard: dropout, BatchNorm, shuffling, a schedule, an accumulated
metric, a best model, an early-stopping callback, and resume checkpoints every few steps, so that
many instants fall into one that is being written.
"""

import csv
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import orbax.checkpoint  # noqa: F401 - here, so that no child has to

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping

EPOCHS, STEPS_PER_EPOCH, BATCH = 3, 12, 32
STEPS = EPOCHS * STEPS_PER_EPOCH
PACE = 0.04
"""Seconds that each step is made to take, so that a run is more than its start."""


class Net(nn.Module):
    """Dense layers with BatchNorm and dropout."""

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        for _ in range(2):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(64)(x))
            x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(4)(x)


class Trainer(bx.TrainerModule):
    """A classifier that writes a digest of its last state when it is trained."""

    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        """Cross-entropy, and accuracy."""
        x, y = batch
        logits = model(x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return loss, {"acc": logits.argmax(-1) == y}

    def eval_model(self, loader: Any, log_prefix: str = "") -> dict[str, Any]:
        """Evaluates, and notes that it does."""
        _note(self.log_dir, "evaluation")
        time.sleep(4 * PACE)
        metrics = super().eval_model(loader, log_prefix)
        _note(self.log_dir, "evaluated")
        return metrics

    def on_training_end(self) -> None:
        """Notes the last state, before that of the best model takes its place for the test."""
        (notes(self.log_dir) / "digest.txt").write_text(digest(self.state))
        _note(self.log_dir, "end")


class Pace(Callback):
    """Makes each step take a while."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder

    def on_step_end(self, view: Any) -> None:
        """Notes the step, and waits."""
        _note(self.folder, str(view.step))
        time.sleep(PACE)


def notes(folder: str | os.PathLike[str]) -> Path:
    """Where a campaign notes what happened to a run: beside its folder, which may be damaged."""
    return Path(f"{os.fspath(folder)}-notes")


def _note(folder: str | os.PathLike[str], moment: str) -> None:
    with (notes(folder) / "moments.txt").open("a") as file:
        file.write(f"{moment}\n")


def moments(folder: Path) -> list[str]:
    """What a run noted: the numbers of its steps, ``evaluation``, ``evaluated`` and ``end``."""
    path = notes(folder) / "moments.txt"
    return path.read_text().splitlines() if path.exists() else []


def data(num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[examples, 16]`` of four classes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, num_examples).astype(np.int32)
    centres = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    return centres[labels] + rng.normal(size=(num_examples, 16)).astype(np.float32), labels


def loaders() -> tuple[bx.data.ArrayLoader, ...]:
    """For training, validation and test."""
    train = bx.data.ArrayLoader(data(STEPS_PER_EPOCH * BATCH, 1), BATCH, shuffle=True, seed=3)
    return train, *(bx.data.ArrayLoader(data(100, seed), 64) for seed in (2, 3))


def make_trainer(
    folder: str | os.PathLike[str],
    callbacks: Sequence[Callback] = (),
    trainer_class: type[Trainer] = Trainer,
    **options: Any,
) -> Trainer:
    """The trainer of the campaigns, in a given folder, with callbacks beside its own."""
    notes(folder).mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "optimizer_hparams": {"lr": 1e-2, "warmup": 5},
        "checkpoint": bx.CheckpointOptions(every_steps=3, keep_last=2),
        "loop": bx.LoopOptions(log_every=5),
    }
    return trainer_class(
        Net,
        {},
        exmp_input=data(BATCH, 1),
        logger_params={"log_dir": os.fspath(folder), "logger_type": "csv"},
        enable_progress_bar=False,
        callbacks=[EarlyStopping("val/loss", patience=50), Pace(folder), *callbacks],
        **{**settings, **options},
    )


def train(trainer: Trainer, *, resume: bool = True) -> dict[str, Any]:
    """Trains, from where the run of the trainer's folder was interrupted if it was."""
    return trainer.train_model(*loaders(), num_epochs=EPOCHS, resume=resume)


def digest(tree: Any) -> str:
    """A checksum over all arrays of a tree."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.device_get(jax.random.key_data(leaf) if is_key else leaf))
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def note_left(trainer: Trainer) -> None:
    """Notes for `differing` what a finished run left."""
    folder = Path(trainer.log_dir)
    (notes(folder) / "left.json").write_text(json.dumps(_left_behind(folder)))


def _left_behind(folder: Path) -> dict[str, str]:
    """Checksums of what a finished run leaves: its last state, metrics, history and best model."""
    names = ["history.csv", *(f"metrics/{path.name}" for path in folder.glob("metrics/*.json"))]
    contents = {name: (folder / name).read_bytes() for name in names}
    contents["metrics.csv"] = _without_speed(folder / "metrics.csv")
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    found["last state"] = (notes(folder) / "digest.txt").read_text()
    best = bx.checkpoint.BestCheckpoints(folder / "checkpoints" / "best").restore()
    metrics = json.dumps(best.metrics, sort_keys=True)
    return found | {"best model": f"step {best.step}, {metrics}, {digest(best.variables)}"}


def _without_speed(path: Path) -> bytes:
    """The records without how fast their steps were, which no two runs have in common."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]
    return json.dumps(kept, sort_keys=True).encode()


def differing(folder: Path, other: Path) -> list[str]:
    """The names of what two finished runs left that is not the same."""
    found, reference = (json.loads((notes(f) / "left.json").read_text()) for f in (folder, other))
    return sorted(n for n in {**found, **reference} if found.get(n) != reference.get(n))
