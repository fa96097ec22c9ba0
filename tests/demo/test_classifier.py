"""The demo's trainer: what its loss adds in training, and what it predicts."""

import jax
import numpy as np
import optax
import pytest

from boltax.demo._classifier import DemoClassifier
from boltax.demo._model import ResNet

IMAGES = np.random.default_rng(0).random((6, 8, 8, 1), np.float32)
LABELS = np.arange(6, dtype=np.int32) % 3


def trainer(**changes) -> DemoClassifier:
    arguments = {"augmentation": "handwriting", "label_smoothing": 0.1, **changes}
    return DemoClassifier(
        ResNet,
        {"num_classes": 3, "block_sizes": (1,), "widths": (4,)},
        {"lr": 0.1, "schedule": "constant"},
        (IMAGES, LABELS),
        logger_params={"logger_type": "none"},
        enable_progress_bar=False,
        **arguments,
    )


@pytest.fixture
def classifier() -> DemoClassifier:
    return trainer()


def test_evaluation_is_plain_cross_entropy(classifier: DemoClassifier) -> None:
    logits = classifier.bind_model()(IMAGES)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
    metrics = classifier.eval_model([(IMAGES, LABELS)])
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert metrics["acc"] == np.mean(np.asarray(logits).argmax(-1) == LABELS)


def test_predictions_are_probabilities(classifier: DemoClassifier) -> None:
    probabilities = classifier.predict_model([(IMAGES, LABELS)])
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    expected = jax.nn.softmax(classifier.bind_model()(IMAGES))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-6)


class Recording:
    """Stands for the model in the loss: keeps its input, answers with equal logits."""

    def __init__(self, **hparams: object) -> None:
        self.hparams = {"augmentation": "handwriting", "label_smoothing": 0.1, **hparams}
        self.images = None

    def __call__(self, images: jax.Array) -> jax.Array:
        self.images = images
        return jax.numpy.zeros((len(images), 3)).at[:, 0].set(2.0)

    def rng(self, name: str) -> jax.Array:
        return jax.random.key(len(name))


@pytest.mark.parametrize("train", [True, False])
def test_only_training_images_are_augmented(classifier: DemoClassifier, train: bool) -> None:
    model = Recording()
    classifier.loss_function(model, (IMAGES, LABELS), train)
    assert np.array_equal(model.images, IMAGES) == (not train)


def test_only_training_labels_are_smoothed(classifier: DemoClassifier) -> None:
    batch = (IMAGES, LABELS)
    plain, _ = classifier.loss_function(Recording(label_smoothing=0.0), batch, True)
    smoothed, _ = classifier.loss_function(Recording(label_smoothing=0.3), batch, True)
    evaluated, metrics = classifier.loss_function(Recording(label_smoothing=0.3), batch, False)
    np.testing.assert_allclose(plain, evaluated, rtol=1e-6)
    log_probability = np.asarray(jax.nn.log_softmax(jax.numpy.array([2.0, 0.0, 0.0])))
    np.testing.assert_allclose(smoothed, 0.7 * plain - 0.1 * log_probability.sum(), rtol=1e-5)
    assert np.asarray(metrics["acc"]).tolist() == [True, False, False] * 2


def test_bytes_are_taken_too() -> None:
    pixels = (IMAGES * 255).astype(np.uint8)
    metrics = trainer(augmentation="clothes").train_model([(pixels, LABELS)], num_epochs=1)
    assert np.isfinite(metrics["train/loss"])
