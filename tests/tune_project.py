"""A user's file as `boltax tune` takes it: a trainer, loaders and spaces, small and quick."""

import flax.linen as nn
import numpy as np
import optax

import boltax as bx
from boltax.data import ArrayLoader
from boltax.models import dropout

space = {"lr": ("log", 1e-3, 1e-1), "weight_decay": ("log", 1e-4, 1e-2), "rate": (0.0, 0.5)}
two_widths = {**space, "width": [4, 8]}


def by_hand(trial):
    """A function of the trial."""
    layers = trial.suggest_int("layers", 1, 2)
    return {"lr": trial.suggest_float("lr", 1e-3, 1e-1), "width": 4 * layers}


def make_loaders():
    """Two classes that are told apart in a few steps, for training, validation and test."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 64).astype(np.int32)
    inputs = (draw.normal(size=(64, 4)) + 2 * labels[:, None]).astype(np.float32)
    loader = ArrayLoader((inputs, labels), 16, shuffle=True)
    return loader, ArrayLoader((inputs, labels), 64), ArrayLoader((inputs, labels), 64)


class Mlp(nn.Module):
    """One hidden layer, with dropout."""

    width: int = 4

    @nn.compact
    def __call__(self, x, train, rate=0.0):
        x = nn.relu(nn.Dense(self.width)(x))
        if train:
            x = dropout(x, rate, self.make_rng("dropout"))
        return nn.Dense(2)(x)


class Classifier(bx.TrainerModule):
    """Its dropout rate is a hyperparameter of its own."""

    def loss_function(self, model, batch, train):
        inputs, labels = batch
        logits = model(inputs, rate=model.hparams["rate"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


def make_trainer(lr, weight_decay=1e-4, rate=0.1, width=4, seed=0):
    """A trainer of these hyperparameters."""
    return Classifier(
        Mlp,
        {"width": width},
        {"optimizer": "adamw", "lr": lr, "weight_decay": weight_decay},
        exmp_input=next(iter(make_loaders()[0])),
        seed=seed,
        rate=rate,
        logger_params={"logger_type": "none"},
        enable_progress_bar=False,
    )
