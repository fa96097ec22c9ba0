"""What is compared: optimizers, each without and with regularisation, in one of three set-ups.

No number was tuned here. Learning rates and coefficients are those of the papers that are named;
what is not named is the default of boltax: cosine decay to 1 %, gradients clipped at norm 1, and
neither for learned optimizers, which set their own steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boltax.errors import OptimizerError
from boltax.optim import check_hparams

L2 = {"l2_regularization": 1e-4}  # He et al. 2016, where it is called weight decay
DECAY = {"weight_decay": 1e-2}  # decoupled; the default of PyTorch's AdamW


@dataclass(frozen=True)
class Arm:
    """One line of the grid.

    Attributes:
        optimizer: its name, for people.
        regularizer: what is added to it; empty for nothing.
        hparams: what the trainer is given.
    """

    optimizer: str
    regularizer: str
    hparams: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name in files."""
        kind = self.regularizer.partition(" ")[0].lower() or "none"
        return f"{self.hparams['optimizer']}-{kind}"

    @property
    def label(self) -> str:
        return f"{self.optimizer}, {self.regularizer}" if self.regularizer else self.optimizer


@dataclass(frozen=True)
class Setup:
    """What every arm trains, and on what.

    Attributes:
        name: the name in files.
        about: the same in words.
        model_hparams: arguments of `boltax.demo.ResNet`.
        subset: training images; None for all.
        val_images: images that are validated on after each epoch; None for all.
        batch_size: examples in a training step.
        eval_batch: examples in an evaluation step; divides both sets, so one program evaluates.
        epochs: passes over the training images.
        augmentation: as for `DemoClassifier`.
        steps_per_execution: as for `LoopOptions`; fixed where times are compared on a busy CPU.
    """

    name: str
    about: str
    model_hparams: Mapping[str, Any]
    subset: int | None
    val_images: int | None
    batch_size: int
    eval_batch: int
    epochs: int
    augmentation: str
    steps_per_execution: int | str = field(default=1)


SETUPS = {
    "cifar-cpu": Setup(
        name="cifar-cpu",
        about="ResNet-8 (stem of stride 2) on 5,000 images of CIFAR-10, batches of 64, 10 epochs",
        model_hparams={"block_sizes": (1, 1, 1), "widths": (16, 32, 64), "stem_stride": 2},
        subset=5000,
        val_images=2000,
        batch_size=64,
        eval_batch=500,
        epochs=10,
        augmentation="photographs",
    ),
    "cifar-full": Setup(
        name="cifar-full",
        about="ResNet-20 on the 45,000 training images of CIFAR-10, batches of 128, 60 epochs",
        model_hparams={"block_sizes": (3, 3, 3), "widths": (16, 32, 64)},
        subset=None,
        val_images=None,
        batch_size=128,
        eval_batch=500,
        epochs=60,
        augmentation="photographs",
        steps_per_execution="auto",
    ),
    "digits": Setup(
        name="digits",
        about="ResNet-8 on the 1,257 training images of scikit-learn's digits, batches of 64, "
        "10 epochs",
        model_hparams={"block_sizes": (1, 1, 1), "widths": (16, 32, 64)},
        subset=None,
        val_images=None,
        batch_size=64,
        eval_batch=180,
        epochs=10,
        augmentation="handwriting",
    ),
}


PLAIN: dict[str, dict[str, Any]] = {
    "SGD + momentum": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},  # He et al. 2016
    "Adam": {"optimizer": "adam", "lr": 1e-3},  # Kingma and Ba 2015
    "AdamW": {"optimizer": "adamw", "lr": 1e-3},  # Loshchilov and Hutter 2019
    "Celo": {"optimizer": "celo"},
    "Celo-Adam": {"optimizer": "celo_adam"},
    "VeLO": {"optimizer": "velo"},
}
WEIGHTS = {
    "Celo": "celo.theta.state",
    "Celo-Adam": "celo_adam.theta.state",
    "VeLO": "velo.params",
}


def arms(weights: Path | None) -> tuple[list[Arm], dict[str, str]]:
    """The arms that can run here, and for the other optimizers the reason why not.

    AdamW is regularised by its own decoupled decay: with a term in the loss it would be Adam with
    that term, for without decay the two are the same.

    Args:
        weights: folder with the files `WEIGHTS` of learned optimizers, or some of them; or None.
    """
    found, reasons = list[Arm](), dict[str, str]()
    for optimizer, plain in PLAIN.items():
        hparams = dict(plain)
        if optimizer in WEIGHTS:
            if weights is None:
                reasons[optimizer] = "Received no --weights; expected the folder of its weights."
                continue
            hparams["weights"] = str(weights / WEIGHTS[optimizer])
        try:
            check_hparams(hparams)
        except OptimizerError as error:
            reasons[optimizer] = str(error)
            continue
        regularizer = ("decay 1e-2", DECAY) if optimizer == "AdamW" else ("L2 1e-4", L2)
        found += [
            Arm(optimizer, "", hparams),
            Arm(optimizer, regularizer[0], {**hparams, **regularizer[1]}),
        ]
    return found, reasons
