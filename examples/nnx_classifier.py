"""Trains a classifier written in Flax NNX, with callbacks that watch it and stop it in time.

    python examples/nnx_classifier.py

The model is the MLP of `mlp_optuna.py`, with BatchNorm and dropout; the loss function is the same,
too, for boltax hands in the parameters, the statistics, the random streams and the mode of either
kind of model. Writes curves.png into the folder of the run.
"""

import argparse
from pathlib import Path

import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping, LearningRateMonitor, Log
from boltax.data import ArrayLoader


# Data: 1,797 images of 8x8 pixels that come with scikit-learn; a batch is a dict of NumPy arrays.
def make_loaders(batch_size=64):
    pixels, labels = load_digits(return_X_y=True)
    data = (pixels / 16.0).astype(np.float32), labels.astype(np.int32)
    x_train, x_rest, y_train, y_rest = train_test_split(*data, test_size=600, random_state=0)
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, test_size=300, random_state=0)
    train_data = {"pixels": x_train, "label": y_train}
    return (
        ArrayLoader(train_data, batch_size, shuffle=True, drop_last=True),
        ArrayLoader({"pixels": x_val, "label": y_val}, batch_size=300),
        ArrayLoader({"pixels": x_test, "label": y_test}, batch_size=300),
    )


# Model: an ordinary NNX module, given as a class. Its `rngs` come from the trainer's seed.
class MLP(nnx.Module):
    def __init__(self, in_features, hidden_dims, num_classes, dropout, *, rngs):
        layers = []
        for width in hidden_dims:
            layers += [
                nnx.Linear(in_features, width, rngs=rngs),
                nnx.BatchNorm(width, rngs=rngs),
                nnx.silu,
                nnx.Dropout(dropout, rngs=rngs),
            ]
            in_features = width
        self.hidden = nnx.Sequential(*layers)
        self.head = nnx.Linear(in_features, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.hidden(x))


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        logits = model(batch["pixels"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return loss, {"acc": logits.argmax(-1) == batch["label"]}

    def predict_function(self, model, batch):
        return model(batch["pixels"]).argmax(-1)


# Callback: it sees a frozen view of the run, and asks for what it wants.
class WeightNorm(Callback):
    def on_training_epoch_end(self, view):
        return Log({"weight_norm": optax.tree.norm(view.state.params)})


def plot_curves(rows, path):
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.set_yscale("log")
    for axes, metric, title in ((loss, "loss", "Loss"), (accuracy, "acc", "Accuracy")):
        for phase, color in (("train", "#2f6db3"), ("val", "#e07b28")):
            values = [row[f"{phase}/{metric}"] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, ".-", color=color, label=phase)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.grid(color="#e5e7eb")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    train_loader, val_loader, test_loader = make_loaders()
    trainer = Classifier(
        model_class=MLP,
        model_hparams={
            "in_features": 64,
            "hidden_dims": (128, 128),
            "num_classes": 10,
            "dropout": 0.3,
        },
        optimizer_hparams={"optimizer": "adamw", "lr": 5e-3, "weight_decay": 1e-2, "warmup": 0.1},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        callbacks=[EarlyStopping("val/loss", patience=6), LearningRateMonitor(), WeightNorm()],
        monitor=("val/loss", "min"),
        loop=bx.LoopOptions(log_every=10),  # steps between two records of loss and learning rate
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)
    rows = bx.loggers.History(Path(trainer.log_dir, "history.csv")).rows()
    plot_curves(rows, Path(trainer.log_dir, "curves.png"))
    print(f"Test accuracy {metrics['test/acc']:.3f}. Wrote {trainer.log_dir}/curves.png")

    # The best model again, from its folder: whole data sets through it, or the NNX module itself.
    trainer = Classifier.load_from_checkpoint(trainer.log_dir, enable_progress_bar=False)
    predicted, labels = trainer.predict_model(test_loader), test_loader.arrays["label"]
    print(f"It takes {(predicted != labels).sum()} of {len(labels)} test images for another digit.")
    model = trainer.bind_model()
    print(f"The first one shows a {int(model(test_loader.arrays['pixels'][:1]).argmax())}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60, help="at most")
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
