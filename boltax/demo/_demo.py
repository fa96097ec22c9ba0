"""The demo from start to end: load, train, test, draw, and say what to do next."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from boltax._base._optional import import_optional
from boltax.checkpoint._rundir import RunDirectory
from boltax.data._array_loader import ArrayLoader
from boltax.demo._classifier import make_trainer
from boltax.demo._data import DemoData
from boltax.demo._figures import plot_confusion, plot_curves, plot_mistakes
from boltax.demo._recipes import find_recipe, load
from boltax.demo._report import print_next_steps, print_results
from boltax.loggers._history import History


@dataclass(frozen=True)
class DemoResult:
    """What a demo run gave.

    Attributes:
        log_dir: the run's folder.
        metrics: metrics of the best validation, and of the test.
        seconds: time of the whole run, compilation included.
        figures: the pictures that it wrote.
    """

    log_dir: str
    metrics: dict[str, float]
    seconds: float
    figures: tuple[Path, ...]


def run(
    data: str = "digits",
    path: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 42,
    log_dir: str | Path = "runs",
    has_progress: bool = True,
) -> DemoResult:
    """Trains a ResNet on real images, tests it, and draws what came out.

    Args:
        data: ``"digits"`` or ``"fashion-mnist"``.
        path: folder of the files of Fashion-MNIST; by default that of the Debian package.
        epochs: passes over the training images; by default what the data set needs.
        seed: of the parameters, the order of the data and the augmentation; not of the split.
        log_dir: folder of all runs.
        has_progress: whether to show progress and the model summary.

    Returns:
        The run's folder, metrics, time and pictures.

    Raises:
        UnknownNameError: for a data set that does not exist.
        DataError: when files are absent or damaged.
        MissingExtraError: when the extra ``demo`` is not installed.
    """
    started = time.monotonic()
    recipe = find_recipe(data)
    # Its absence should show now, and not after the training.
    import_optional("matplotlib", extra="demo", purpose="boltax demo")
    images = load(data, path)
    trainer = make_trainer(images, recipe, seed=seed, log_dir=log_dir, has_progress=has_progress)
    test_loader = ArrayLoader(images.test, recipe.eval_batch_size)
    metrics = trainer.train_model(
        ArrayLoader(images.train, recipe.batch_size, shuffle=True, drop_last=True, seed=seed),
        ArrayLoader(images.val, recipe.eval_batch_size),
        test_loader,
        num_epochs=recipe.epochs if epochs is None else epochs,
    )
    rows = History(RunDirectory(trainer.log_dir).history).rows()
    figures = write_figures(images, trainer.predict_model(test_loader), rows, Path(trainer.log_dir))
    seconds = time.monotonic() - started
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params))
    print_results(images, rows, metrics, parameters=parameters, seconds=seconds)
    print_next_steps(images, figures, log_dir=trainer.log_dir, base=log_dir)
    return DemoResult(trainer.log_dir, metrics, seconds, figures)


def write_figures(
    images: DemoData, probabilities: NDArray[Any], rows: list[dict[str, Any]], folder: Path
) -> tuple[Path, ...]:
    """Draws the three pictures of a run.

    Args:
        images: the data set.
        probabilities: predictions for its test images ``[examples, classes]``.
        rows: the history, a mapping for each epoch.
        folder: where to write.
    """
    curves, confusion, mistakes = (
        folder / name for name in ("curves.png", "confusion.png", "mistakes.png")
    )
    test_images, labels = images.test
    matrix = np.zeros((len(images.class_names),) * 2, np.int64)
    np.add.at(matrix, (labels, probabilities.argmax(-1)), 1)
    plot_curves(rows, curves)
    plot_confusion(matrix, images.class_names, confusion)
    plot_mistakes(test_images, labels, probabilities, images.class_names, mistakes)
    return curves, confusion, mistakes
