"""One cell of the grid: an arm trained with a seed. It is stored, and not trained again."""

import dataclasses
import hashlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

import boltax as bx
from boltax.checkpoint._files import write_json
from boltax.data import ArrayLoader
from boltax.demo import DemoClassifier, DemoData, ResNet, load_cifar10, load_digits
from boltax.errors import NonFiniteError
from boltax.loggers import History
from grid.arms import Arm, Setup

CURVES = {
    "step": "steps",
    "train/loss": "train_loss",
    "val/loss": "val_loss",
    "val/acc": "val_acc",
}


@dataclass(frozen=True)
class Cell:
    """What came out of one training.

    Attributes:
        arm: the arm's name.
        seed: of the parameters, the order of the images and their augmentation.
        recipe: everything that decides the result; a stored cell with another one is not used.
        steps: completed ones after each epoch, as all curves.
        train_loss: means over the epoch, with augmentation.
        val_loss: after the epoch.
        val_acc: after the epoch.
        test: loss and accuracy of the last model on the test images.
        failure: why there is no result; empty where there is one.
    """

    arm: str
    seed: int
    recipe: dict[str, Any]
    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_acc: list[float] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    failure: str = ""

    @classmethod
    def stored(cls, file: Path, recipe: dict[str, Any]) -> Self | None:
        """The cell in a file, when it has this recipe."""
        try:
            cell = cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return cell if cell.recipe == recipe else None


def recipe_of(setup: Setup, arm: Arm, seed: int) -> dict[str, Any]:
    """Everything that decides a cell's result, as plain JSON; of weights, their checksum."""
    hparams = dict(arm.hparams)
    if "weights" in hparams:
        content = Path(hparams["weights"]).read_bytes()
        hparams["weights"] = hashlib.sha256(content).hexdigest()[:16]
    recipe = {"setup": dataclasses.asdict(setup), "hparams": hparams, "seed": seed}
    return json.loads(json.dumps(recipe))


def load_images(setup: Setup, data: Path | None) -> DemoData:
    """The images, with mean 0 and standard deviation 1 in each channel of the training images."""
    images = load_digits() if data is None else load_cifar10(data, subset=setup.subset)
    pixels = images.train[0].astype(np.float32)
    mean, deviation = (f(pixels, axis=(0, 1, 2), keepdims=True) for f in (np.mean, np.std))
    parts = {
        part: ((x.astype(np.float32) - mean) / deviation, y)
        for part in ("train", "val", "test")
        for x, y in [getattr(images, part)]
    }
    return dataclasses.replace(images, **parts)


def train(setup: Setup, arm: Arm, seed: int, images: DemoData, file: Path) -> Cell:
    """The cell, out of its file or by training."""
    recipe = recipe_of(setup, arm, seed)
    if (cell := Cell.stored(file, recipe)) is not None:
        return cell
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = _train(setup, arm, seed, images, folder)
        except NonFiniteError as error:
            found = {"failure": str(error)}
    cell = Cell(arm.name, seed, recipe, **found)
    write_json(file, dataclasses.asdict(cell))
    return cell


def _train(setup: Setup, arm: Arm, seed: int, images: DemoData, folder: str) -> dict[str, Any]:
    train_loader = loader(setup, images, seed)
    val = tuple(part[: setup.val_images] for part in images.val)
    trainer = make_trainer(setup, arm, seed, images, folder)
    trainer.train_model(train_loader, ArrayLoader(val, setup.eval_batch), num_epochs=setup.epochs)
    rows = History(Path(trainer.log_dir, "history.csv")).rows()
    # The last model, not the one that was best on the validation images: nothing is chosen.
    test = trainer.eval_model(ArrayLoader(images.test, setup.eval_batch))
    curves = {field: [row[name] for row in rows] for name, field in CURVES.items()}
    return {**curves, "test": {name: test[name] for name in ("loss", "acc")}}


def loader(setup: Setup, images: DemoData, seed: int) -> ArrayLoader:
    """The training images in batches."""
    return ArrayLoader(images.train, setup.batch_size, shuffle=True, drop_last=True, seed=seed)


def make_trainer(
    setup: Setup, arm: Arm, seed: int, images: DemoData, folder: str
) -> DemoClassifier:
    """The trainer of an arm, which logs nothing and saves little."""
    return DemoClassifier(
        model_class=ResNet,
        model_hparams={"num_classes": len(images.class_names), **setup.model_hparams},
        optimizer_hparams=dict(arm.hparams),
        exmp_input=next(iter(loader(setup, images, seed))),
        seed=seed,
        logger_params={"base_log_dir": folder, "logger_type": "none"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(steps_per_execution=setup.steps_per_execution),
        checkpoint=bx.CheckpointOptions(keep_last=0),
        augmentation=setup.augmentation,
        label_smoothing=0.0,
    )
