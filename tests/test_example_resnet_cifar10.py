"""The ResNets of the CIFAR-10 example have the published sizes; its options are what is applied."""

import argparse
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from boltax.demo import ResNet
from boltax.errors import BoltaxError
from boltax.optim import build

FILE = Path(__file__).parent.parent / "examples" / "resnet_cifar10.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("resnet_cifar10", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(example, optimizer, **given):
    options = {"lr": None, "l2": None, "weight_decay": None, "weights": None, **given}
    hparams = example.optimizer_hparams(argparse.Namespace(optimizer=optimizer, **options))
    return build(hparams, total_steps=100).describe


@pytest.mark.parametrize(
    "name, layers, parameters",
    [("resnet20", 20, 0.27e6), ("resnet18", 18, 11.17e6), ("resnet8", 8, 0.078e6)],
)
def test_models_have_the_published_depths_and_sizes(example, name, layers, parameters):
    model = ResNet(num_classes=10, **example.MODELS[name])
    images = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(lambda key: model.init(key, images), jax.random.key(0))["params"]
    leaves = jax.tree.leaves(shapes)
    is_layer = [leaf.ndim == 2 or leaf.shape[:2] == (3, 3) for leaf in leaves]
    assert sum(is_layer) == layers  # shortcuts do not count
    assert sum(leaf.size for leaf in leaves) == pytest.approx(parameters, rel=0.01)


def test_nothing_regularises_that_was_not_asked_for(example):
    for optimizer in ("sgd", "adam", "adamw"):
        assert "l2" not in described(example, optimizer)
        assert "decay" not in described(example, optimizer)


def test_l2_decay_and_learning_rate_are_applied_as_asked(example):
    assert described(example, "sgd", l2=1e-4).endswith("l2 0.0001")
    assert "decay 0.01 on all parameters" in described(example, "adamw", weight_decay=0.01)
    assert "lr 0.5 " in described(example, "sgd", lr=0.5)


def test_every_other_optimizer_has_the_default_of_boltax(example):
    assert described(example, "lion").startswith("lion, lr 0.001")


def test_decay_of_adam_is_refused(example):
    with pytest.raises(BoltaxError, match="adamw"):
        described(example, "adam", weight_decay=0.01)
