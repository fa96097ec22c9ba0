"""Keras on JAX: `compile` and `fit` with their defaults, and with 32 steps in one call."""

import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras

from suite.batches import loader
from suite.keras_models import make_model
from suite.rounds import NotOfferedError, Rounds
from suite.tasks import LEARNING_RATE, Task, make_data


class Clock(keras.callbacks.Callback):
    def __init__(self, rounds: Rounds) -> None:
        super().__init__()
        self.rounds = rounds
        self.steps_before = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.steps_before = int(self.model.optimizer.iterations)
        self.rounds.begin()

    def on_test_begin(self, logs: Any = None) -> None:
        jax.block_until_ready([variable.value for variable in self.model.variables])
        steps = int(self.model.optimizer.iterations) - self.steps_before
        self.rounds.trained(steps=steps)

    def on_test_end(self, logs: Any = None) -> None:
        self.rounds.evaluated()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rounds.note(
            loss=logs["loss"],
            acc=logs["acc"],
            eval_loss=logs["val_loss"],
            eval_acc=logs["val_acc"],
        )


def run(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """One step in a call."""
    _fit(task, rounds, data, steps=1)


def fused(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """32 steps in a call."""
    _fit(task, rounds, data, steps=32)


def _fit(task: Task, rounds: Rounds, data: str, steps: int) -> None:
    train, val = make_data(task)
    model = make_model(task)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("acc")],
        steps_per_execution=steps,
    )
    options = {"epochs": rounds.number, "steps_per_epoch": rounds.max_steps}
    options["callbacks"] = [Clock(rounds)]
    if data == "memory":
        model.fit(*train, batch_size=task.batch, validation_data=val, **options)
    elif data == "torch":
        val_loader = loader(val, data, task.batch, shuffle=False)
        train_loader = loader(train, data, task.batch, shuffle=True)
        model.fit(train_loader, validation_data=val_loader, **options)
    else:
        raise NotOfferedError("reads arrays and DataLoader only")
