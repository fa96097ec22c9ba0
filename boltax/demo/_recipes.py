"""How the demo trains on each of its data sets.

The settings were chosen by accuracy on validation images; the test images had no part in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from boltax.demo._data import DemoData, load_digits, load_fashion_mnist
from boltax.errors import ConfigurationError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for one data set.

    Attributes:
        model_hparams: arguments of `ResNet`.
        optimizer_hparams: as for `TrainerModule`.
        augmentation: as for `DemoClassifier`.
        batch_size: examples in a training step.
        eval_batch_size: examples in an evaluation step; divides the sets, so that only one shape
            is compiled.
        epochs: passes over the training images.
    """

    model_hparams: Mapping[str, Any]
    optimizer_hparams: Mapping[str, Any]
    augmentation: str
    batch_size: int
    eval_batch_size: int
    epochs: int


_SGD = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "warmup_cosine",
    "warmup": 0.1,
    "gradient_clip": 1.0,
}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits": Recipe(
            model_hparams={"num_classes": 10, "block_sizes": (1, 1, 1), "widths": (32, 64, 128)},
            optimizer_hparams={**_SGD, "lr": 0.1, "weight_decay": 5e-3},
            augmentation="handwriting",
            batch_size=64,
            eval_batch_size=180,
            epochs=25,
        ),
        "fashion-mnist": Recipe(
            model_hparams={
                "num_classes": 10,
                "block_sizes": (1, 1, 1),
                "widths": (24, 48, 96),
                "stem_stride": 2,
            },
            optimizer_hparams={**_SGD, "lr": 0.1, "weight_decay": 5e-3},
            augmentation="clothes",
            batch_size=128,
            eval_batch_size=1000,
            epochs=10,
        ),
    }
)


def find_recipe(data: str) -> Recipe:
    """The settings for a data set.

    Raises:
        UnknownNameError: for one that does not exist.
    """
    if data not in RECIPES:
        raise unknown_name("data set", data, RECIPES)
    return RECIPES[data]


def load(data: str, path: str | Path | None) -> DemoData:
    """The images of a data set.

    Args:
        data: its name.
        path: folder of its files, where it has any.

    Raises:
        ConfigurationError: for a path to a data set that has no files.
        DataError: when the files are absent or damaged.
    """
    if data == "fashion-mnist":
        return load_fashion_mnist(path)
    if path is not None:
        raise ConfigurationError(
            f"Received path={str(path)!r} for the data set {data!r}; expected none, for it comes "
            "with scikit-learn. Leave --path out, or write --data fashion-mnist."
        )
    return load_digits()
