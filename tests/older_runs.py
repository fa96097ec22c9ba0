"""A run and a population as an older version left them, and how they were made.

`tests/fixtures/older/` holds two folders that were interrupted within an epoch, and
`expected.json` beside them: what they end with, by the version that wrote them. They stay as they
are when the format changes: they are what users have on their disks. To add those of another
version, check that version out and write a folder of its own:

    export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2
    PYTHONPATH=.:tests python -c "import older_runs; older_runs.write('/runs/older_2')"

and move it here: Orbax writes into each checkpoint where it was made.

Data follow a formula in whole numbers, and nothing that trains has a gradient of rounding alone, so
that every processor gets the same numbers but for the last bits.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping
from boltax.tune import Population, PopulationBasedTraining

NUM_EPOCHS = 4
"""Of eight steps each, the last one with half a batch."""
INTERRUPTED_AT = 21
"""The step at which both were interrupted; between two records, and within an epoch."""
MEMBERS = [{"seed": 0, "lr": 0.2}, {"seed": 1, "lr": 0.02}, {"seed": 2, "lr": 0.0002}]


class OlderMlp(nn.Module):
    """Some forty parameters, with BatchNorm and dropout."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4, use_bias=False)(x)  # BatchNorm would leave rounding alone to a bias
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.25, deterministic=not train)(nn.tanh(x))
        return nn.Dense(2)(x)


class OlderClassifier(bx.TrainerModule):
    """Two classes."""

    def loss_function(self, model, batch, train):
        inputs, labels = batch
        logits = model(inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


class Interruption(Exception):
    """Stands for a fault that ends the process."""


class Interrupt(Callback):
    """Ends a run at a step, if one is given."""

    def __init__(self, step: int | None = None):
        self.step = step

    def on_step_end(self, view):
        if view.step == self.step:
            raise Interruption


class Interrupting:
    """The training loader, which fails where a population, that has no callbacks, is to end."""

    def __init__(self):
        self.loader = loaders()[0]
        self.owns_batches, self.num_batches = True, self.loader.num_batches
        self.left = INTERRUPTED_AT

    def fingerprint(self):
        return self.loader.fingerprint()

    def epoch(self, epoch, after=None):
        for batch, cursor in self.loader.epoch(epoch, after):
            if not self.left:
                raise Interruption
            self.left -= 1
            yield batch, cursor


def examples(number: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points in three dimensions with exact coordinates, and on which side of a plane they lie."""
    index = np.arange(first, first + number)[:, None]
    inputs = ((index * 37 + index * index * 11 + np.arange(3) * 53) % 128 - 64) / 64
    labels = (inputs.sum(-1) > 0).astype(np.int32)
    return inputs.astype(np.float32), labels


def loaders() -> list[bx.data.ArrayLoader]:
    """For training, validation and test."""
    return [
        bx.data.ArrayLoader(examples(60), 8, shuffle=True, seed=3),
        bx.data.ArrayLoader(examples(20, 100), 8),
        bx.data.ArrayLoader(examples(20, 200), 8),
    ]


def older_trainer(folder: str | Path, callbacks: tuple[Callback, ...] = ()) -> OlderClassifier:
    """The trainer of both, which writes to `folder`."""
    return OlderClassifier(
        OlderMlp,
        {},
        {"optimizer": "adam", "lr": 0.05, "warmup": 4, "eps": 1e-3},
        examples(4),
        seed=7,
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
        enable_progress_bar=False,
        callbacks=callbacks,
        monitor=("val/loss", "min"),
        loop=bx.LoopOptions(log_every=4, ema=0.9, prefetch=1),
        checkpoint=bx.CheckpointOptions(keep_last=1, keep_best=2),
    )


def older_run(folder: str | Path, interrupt_at: int | None = None) -> OlderClassifier:
    """The trainer of the single run."""
    patient = EarlyStopping("val/loss", "min", patience=10)
    return older_trainer(folder, (patient, Interrupt(interrupt_at)))


def older_population(folder: str | Path, members_per_step: int) -> Population:
    """The population, with a scheduler that copies members."""
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (1e-5, 1.0)}, quantile=0.5)
    return Population(
        older_trainer(folder),
        MEMBERS[: max(2, members_per_step)],
        scheduler=evolve,
        members_per_step=members_per_step,
        devices=1,
    )


def saved_step(folder: Path) -> int | None:
    """The step of the newest resume checkpoint in a folder."""
    directory = bx.checkpoint.RunDirectory(folder).resume
    return bx.checkpoint.ResumeCheckpoints(directory).newest_step()


def outcome_of_run(trainer: OlderClassifier, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a run has come to, as plain JSON, without times."""
    run = trainer.run
    return {
        "step": run.step,
        "epoch": run.epoch,
        "metrics": _without_times(metrics),
        "history": [_without_times(row) for row in run.history],
        "best_steps": bx.checkpoint.BestCheckpoints(
            bx.checkpoint.RunDirectory(trainer.log_dir).best
        ).steps(),
        "state": {**_plain(_variables(trainer)), **_plain({"opt_state": trainer.state.opt_state})},
    }


def outcome_of_population(population: Population) -> dict[str, Any]:
    """What a population has come to, as plain JSON, without times."""
    table = population.table
    return {
        "rows": [_without_times(row) for row in table.rows],
        "history": [_without_times(row) for row in table.history],
        "members": [_plain(_variables(population.member(n))) for n in range(len(table.rows))],
    }


def _without_times(values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("time/")}


def _variables(trainer: OlderClassifier) -> dict[str, Any]:
    state = trainer.state
    variables = {"params": state.params, "batch_stats": state.batch_stats, "ema": state.ema}
    return {**variables, "rng": jax.random.key_data(state.rng)}


def _plain(tree: Any) -> dict[str, Any]:
    """Every array by its path."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tolist()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def write(folder: str) -> None:
    """Writes interrupted runs into `folder`, and what the uninterrupted ones end with."""
    os.makedirs(folder)
    os.chdir(folder)  # their options name their folder: a relative one, that says nothing of here
    expected: dict[str, Any] = {}
    with contextlib.suppress(Interruption):
        older_run("run", INTERRUPTED_AT).train_model(*loaders(), num_epochs=NUM_EPOCHS)
    trainer = older_run("whole_run")
    metrics = trainer.train_model(*loaders(), num_epochs=NUM_EPOCHS)
    expected["run"] = outcome_of_run(trainer, metrics)
    for size in (1, 3):
        name = f"population_{size}"
        with contextlib.suppress(Interruption):
            older_population(name, size).train_model(
                Interrupting(), loaders()[1], num_epochs=NUM_EPOCHS
            )
        population = older_population(f"whole_{name}", size)
        population.train_model(*loaders()[:2], num_epochs=NUM_EPOCHS)
        expected[name] = outcome_of_population(population)
    for whole in Path().glob("whole_*"):
        shutil.rmtree(whole)
    for path in (*Path().glob("*/.lock"), *Path().glob("*/model.txt")):
        path.unlink()  # who ran here, and what nobody reads
    Path("expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
