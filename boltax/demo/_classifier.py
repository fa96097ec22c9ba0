"""The trainer of the demo: a loss with augmentation and label smoothing.

The methods of the class are traced; what stands below it is not.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from boltax._base._options import LoopOptions
from boltax.callbacks._learning_rate import LearningRateMonitor
from boltax.demo._augment import augment
from boltax.demo._data import DemoData
from boltax.demo._model import ResNet
from boltax.demo._recipes import Recipe
from boltax.models._view import ModelView
from boltax.trainer import TrainerModule

MONITOR = ("val/loss", "min")
"""Accuracy on a few hundred images has many ties; the loss has none."""


class DemoClassifier(TrainerModule):
    """Classifies images, with the augmentation that the hyperparameter ``augmentation`` names.

    Hyperparameters beside those of `TrainerModule`: ``augmentation``, ``"handwriting"`` (small
    turns, changes of size and shifts), ``"clothes"`` or ``"photographs"`` (mirroring and shifts),
    and ``label_smoothing``, the share of each training label that is spread over all classes.
    """

    def loss_function(
        self, model: ModelView, batch: Any, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Cross-entropy of each image; in training with augmented images and smoothed labels.

        Args:
            model: the network.
            batch: images ``[batch, height, width, channels]`` and labels ``[batch]``.
            train: whether this is a training step.

        Returns:
            The losses ``[batch]``, and whether each answer is right.
        """
        images, labels = batch
        if train:
            images = augment(model.hparams["augmentation"], model.rng("augment"), images)
        logits = model(images)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        if train:
            targets = optax.smooth_labels(targets, model.hparams["label_smoothing"])
        loss = optax.softmax_cross_entropy(logits, targets)
        return loss, {"acc": jnp.argmax(logits, axis=-1) == labels}

    def predict_function(self, model: ModelView, batch: Any) -> jax.Array:
        """The probability of each class, ``[batch, classes]``, for a batch of images and labels."""
        images, _ = batch
        return jax.nn.softmax(model(images))


def make_trainer(
    images: DemoData, recipe: Recipe, *, seed: int, log_dir: str | Path, has_progress: bool
) -> DemoClassifier:
    """The trainer of a recipe, with its model initialised and its run's folder made."""
    return DemoClassifier(
        model_class=ResNet,
        model_hparams=dict(recipe.model_hparams),
        optimizer_hparams=dict(recipe.optimizer_hparams),
        exmp_input=(images.train[0][:2], images.train[1][:2]),
        seed=seed,
        logger_params={"base_log_dir": str(log_dir), "logger_type": "TensorBoard"},
        enable_progress_bar=has_progress,
        callbacks=[LearningRateMonitor()],
        monitor=MONITOR,
        loop=LoopOptions(log_every=10),
        augmentation=recipe.augmentation,
        label_smoothing=0.1,
    )
