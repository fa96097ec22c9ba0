"""Fine-tunes a network that knows digits to digits that lie askew, by small matrices.

    python examples/finetune_lora.py

A network learns digits. Then they come turned by 25 degrees, with three labelled images of each.
Three trainings: from scratch; all weights of the network that knows digits; and only pairs of small
matrices beside its weights, which stay as they are (Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", 2021). Ends with how many numbers each has trained, with its accuracy on unseen
images, and with their curves (finetuning.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

import boltax as bx

LABELLED = 3  # of each class


# Data: 1,797 images of 8x8 pixels that come with scikit-learn; the last 597 are never trained on.
def make_data():
    images, labels = load_digits().images[..., None], load_digits().target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images / 8.0 - 1.0).astype(np.float32)[order], labels[order]
    turned = rotate(images, 25, axes=(1, 2), reshape=False, order=1, cval=-1.0)
    few = np.concatenate([np.flatnonzero(labels[:1200] == n)[:LABELLED] for n in range(10)])
    return {
        "upright": ((images[:1200], labels[:1200]), (images[1200:], labels[1200:])),
        "turned": ((turned[few], labels[few]), (turned[1200:], labels[1200:])),
    }


class ConvNet(nn.Module):
    width: int = 32

    @nn.compact
    def __call__(self, x):
        for layer in range(3):
            x = nn.Conv(self.width * 2**layer, (3, 3), strides=min(layer, 1) + 1)(x)
            x = nn.relu(nn.GroupNorm(8)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        images, labels = batch
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


def train(model, width, optimizer, data, epochs, log_dir, *, begin_with=None):
    """A training; the last 597 images choose nothing, they are only looked at."""
    train_loader = bx.data.ArrayLoader(
        data[0], batch_size=min(50, len(data[0][1]) // 2), shuffle=True
    )
    val_loader = bx.data.ArrayLoader(data[1], batch_size=199)
    trainer = Classifier(
        model_class=model,
        model_hparams={"width": width},
        optimizer_hparams={"optimizer": "adamw", "warmup": 0.1, **optimizer},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("train/loss", "min"),
        loop=bx.LoopOptions(log_every=1000),
    )
    if begin_with is not None:
        trainer.load_weights(begin_with.log_dir)
    trainer.train_model(train_loader, val_loader, num_epochs=epochs)
    return trainer


def plot(ways, data, path):
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    rows = [np.hstack(data[form][1][0][:6, ..., 0]) for form in data]
    left.imshow(np.vstack(rows), cmap="gray_r", vmin=-1, vmax=1)
    left.set_axis_off()
    left.set_title("what it knows, and what comes", loc="left")
    for name, (trainer, number) in ways.items():
        history = trainer.run.history
        values = [row["val/acc"] for row in history]
        right.plot([row["epoch"] for row in history], values, label=f"{name}: {number:,} numbers")
    right.set(xlabel="epoch", ylabel="accuracy on unseen images")
    right.set_title(f"{LABELLED} labelled images of each digit", loc="left")
    right.grid(color="#e5e7eb")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)


def main(epochs, log_dir, width):
    data = make_data()
    known = train(ConvNet, width, {"lr": 2e-3}, data["upright"], max(2, epochs // 2), log_dir)
    lora = bx.models.Lora(ConvNet, "kernel", rank=4)
    ways = {}
    for name, model, optimizer, begin_with in (
        ("from scratch", ConvNet, {"lr": 2e-3}, None),
        ("all weights", ConvNet, {"lr": 1e-3}, known),
        ("low-rank pairs", lora, {"lr": 3e-3}, known),
    ):
        trainer = train(
            model, width, optimizer, data["turned"], epochs, log_dir, begin_with=begin_with
        )
        number = sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params))
        ways[name] = trainer, number
        print(f"{name}: {number:,} numbers, accuracy {trainer.run.history[-1]['val/acc']:.3f}")
    path = Path(log_dir, "finetuning.png")
    plot(ways, data, path)
    print(f"Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=32, help="of the network")
    main(**vars(parser.parse_args()))
