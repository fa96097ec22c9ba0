"""Trains a small vision transformer on digits, and shows where it looks.

    python examples/vit_digits.py

An image of 8x8 pixels is cut into 16 patches, which are the words of a transformer (Dosovitskiy et
al., "An Image is Worth 16x16 Words", 2021). On the device each image is moved by up to a pixel.
Ends with the accuracy on images that it has not seen, and with one image of each class beside how
much attention each of its pixels got on the way to the answer (attention.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import boltax as bx
from boltax.data import augment

PATCH, HEADS = 2, 4


# Data: 1,797 images of 8x8 pixels that come with scikit-learn.
def make_loaders(batch_size=64):
    images, labels = load_digits().images[..., None], load_digits().target
    data = (images / 8.0 - 1.0).astype(np.float32), labels.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [1197, 1397])
    train, val, test = ({"image": data[0][part], "label": data[1][part]} for part in parts)
    return (
        bx.data.ArrayLoader(train, batch_size, shuffle=True, drop_last=True),
        bx.data.ArrayLoader(val, batch_size=100),
        bx.data.ArrayLoader(test, batch_size=100),
    )


class Block(nn.Module):
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        width, attention = x.shape[-1], nn.MultiHeadDotProductAttention(HEADS)
        new = attention(nn.LayerNorm()(x), sow_weights=True)  # kept where somebody asks for them
        x = x + nn.Dropout(self.dropout)(new, deterministic=not train)
        new = nn.Dense(width)(nn.gelu(nn.Dense(2 * width)(nn.LayerNorm()(x))))
        return x + nn.Dropout(self.dropout)(new, deterministic=not train)


class ViT(nn.Module):
    width: int = 64
    layers: int = 3
    dropout: float = 0.1

    @nn.compact
    def __call__(self, images, train=True):
        x = nn.Conv(self.width, (PATCH, PATCH), strides=PATCH)(images)
        x = x.reshape(len(x), -1, self.width)
        x = x + self.param("place", nn.initializers.normal(0.2), x.shape[1:])[None]
        for _ in range(self.layers):
            x = Block(self.dropout)(x, train)
        return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        images, labels = batch["image"], batch["label"]
        if train:
            images = augment.crop(model.rng("move"), images, padding=1, mode="edge")
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}

    def predict_function(self, model, batch):
        """The class, and how much of each patch is in the answer: attention rolled out."""
        logits, kept = model(batch["image"], mutable=["intermediates"])
        flow = jnp.eye((8 // PATCH) ** 2)
        for layer in range(self.model.layers):
            block = kept["intermediates"][f"Block_{layer}"]["MultiHeadDotProductAttention_0"]
            weights = block["attention_weights"][0].mean(1)  # [batch, to, from], over heads
            flow = 0.5 * (weights + jnp.eye(weights.shape[-1])[None]) @ flow
        side = 8 // PATCH
        return {"class": logits.argmax(-1), "attention": flow.mean(1).reshape(-1, side, side)}


def plot_attention(images, attention, path):
    figure = Figure(figsize=(9, 1.9), layout="constrained")
    grid = figure.subplots(2, len(images))
    largest = jax.image.resize(attention, images.shape[:3], "cubic")
    for (above, below), image, weights in zip(grid.T, images[..., 0], largest, strict=True):
        above.imshow(image, cmap="gray_r", vmin=-1, vmax=1)
        below.imshow(image, cmap="gray_r", vmin=-1, vmax=1)
        below.imshow(weights, cmap="inferno", alpha=0.7, interpolation="bicubic")
        above.set_axis_off(), below.set_axis_off()
    figure.savefig(path, dpi=150)


def main(epochs, log_dir, width):
    train_loader, val_loader, test_loader = make_loaders()
    trainer = Classifier(
        model_class=ViT,
        model_hparams={"width": width},
        optimizer_hparams={
            "lr": 3e-3,
            "weight_decay": 0.05,
            "decay_mask": "kernels",
            "warmup": 0.05,
        },
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/loss", "min"),
        loop=bx.LoopOptions(ema=0.99),
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)

    found, test = trainer.predict_model(test_loader), test_loader.arrays
    chosen = [int(np.argmax(test["label"] == label)) for label in range(10)]
    path = Path(trainer.log_dir, "attention.png")
    plot_attention(test["image"][chosen], found["attention"][chosen], path)
    wrong = (found["class"] != test["label"]).sum()
    print(f"Test accuracy {metrics['test/acc']:.3f}: {wrong} of {len(test['label'])} are wrong.")
    print(f"Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=64, help="of the network")
    main(**vars(parser.parse_args()))
