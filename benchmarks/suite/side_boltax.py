"""boltax as a user has it: `train_model` with all defaults on, and a callback that keeps the time.

Progress as lines, a record each 50 steps to TensorBoard and CSV, metrics, the best model kept,
resume checkpoints, and the look for losses that are not finite.
"""

import time
from pathlib import Path
from typing import Any

import jax

import boltax as bx
from boltax.callbacks import Callback
from boltax.data import ArrayLoader
from suite import linen_models
from suite.batches import loader
from suite.linen_models import per_example
from suite.rounds import Rounds, rss_mb
from suite.tasks import LEARNING_RATE, Task, make_data


class Classifier(bx.TrainerModule):
    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        inputs, labels = batch
        loss, hits = per_example(model(inputs), labels)
        return loss, {"acc": hits}


class Clock(Callback):
    """Has each epoch wait for the driver, and stops the clocks when the device is done."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.steps_before = 0

    def on_training_epoch_start(self, view: Any) -> None:
        jax.block_until_ready(view.state)
        self.steps_before = view.step
        self.rounds.begin()

    def on_training_epoch_end(self, view: Any) -> None:
        jax.block_until_ready(view.state)
        loss, acc = view.metrics["train/loss"], view.metrics["train/acc"]
        self.rounds.trained(loss=loss, acc=acc, steps=view.step - self.steps_before)

    def on_validation_epoch_end(self, view: Any) -> None:
        loss, acc = view.metrics["val/loss"], view.metrics["val/acc"]
        self.rounds.evaluated(eval_loss=loss, eval_acc=acc)


def linen(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """With the Linen model."""
    train(linen_models.MODELS[task.kind], {"sizes": task.sizes}, task, rounds, data, folder)


class Stamps(Callback):
    """Notes the time and the memory after each thousand steps."""

    every = 1000

    def __init__(self) -> None:
        self.times: list[float] = []
        self.memory: list[float] = []

    def on_training_epoch_start(self, view: Any) -> None:
        if not self.times:
            self.on_step_end(view)

    def on_step_end(self, view: Any) -> None:
        jax.block_until_ready(view.state)
        self.times.append(time.perf_counter())
        self.memory.append(rss_mb())


def long(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """One run of `rounds.max_steps` steps, with a stamp after each thousand."""
    stamps = Stamps()
    rounds.begin()
    trainer, loaders = _prepare(
        linen_models.MODELS[task.kind], {"sizes": task.sizes}, task, data, folder, stamps
    )
    trainer.train_model(*loaders, num_epochs=10**6, max_steps=rounds.max_steps)
    rounds.note(times=stamps.times, memory=stamps.memory)


def train(
    model: Any, hparams: dict[str, Any], task: Task, rounds: Rounds, data: str, folder: Path
) -> None:
    """Trains a model for as many epochs as there are rounds."""
    # A run that stops after its first step saves a resume checkpoint: no part of a first step.
    checkpoint = bx.CheckpointOptions(keep_last=0) if rounds.max_steps == 1 else None
    trainer, loaders = _prepare(model, hparams, task, data, folder, Clock(rounds), checkpoint)
    trainer.train_model(*loaders, num_epochs=rounds.number, max_steps=rounds.max_steps)


def _prepare(
    model: Any,
    hparams: dict[str, Any],
    task: Task,
    data: str,
    folder: Path,
    callback: Callback,
    checkpoint: bx.CheckpointOptions | None = None,
) -> tuple[Classifier, tuple[Any, Any]]:
    train, val = make_data(task)
    if data == "memory":
        train_loader = ArrayLoader(train, task.batch, shuffle=True, drop_last=True)
        val_loader = ArrayLoader(val, task.batch)
    else:
        train_loader = loader(train, data, task.batch, shuffle=True)
        val_loader = loader(val, data, task.batch, shuffle=False)
    trainer = Classifier(
        model,
        hparams,
        {
            "optimizer": "adam",
            "lr": LEARNING_RATE,
            "schedule": "constant",
            "gradient_clip": None,
        },
        exmp_input=tuple(array[: task.batch] for array in train),
        logger_params={"base_log_dir": str(folder), "logger_type": ["TensorBoard", "csv"]},
        callbacks=[callback],
        checkpoint=checkpoint,
    )
    return trainer, (train_loader, val_loader)
