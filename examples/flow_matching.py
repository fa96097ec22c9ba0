"""Draws digits that nobody wrote: flow matching with guidance by the class.

    python examples/flow_matching.py

The model learns the velocity that carries noise to images along straight lines (Lipman et al.,
"Flow Matching for Generative Modeling", 2023). A tenth of the labels is hidden from it, so that at
the end it can be asked to go further in the direction of a class (Ho and Salimans, "Classifier-Free
Diffusion Guidance", 2022). Ends with ten digits of each class (digits.png), and how many of 1,000
a classifier trained on real ones takes for what they were meant to be.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import boltax as bx

CLASSES = 10
NO_CLASS = CLASSES  # the label of those whose label is hidden
GUIDANCE = 1.5
STEPS = 40


# Data: 1,797 images of 8x8 pixels that come with scikit-learn, between -1 and 1.
def make_loaders(batch_size=128):
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 8.0 - 1.0).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(order, [1400])
    train, val = ({"image": images[p], "label": labels[p].astype(np.int32)} for p in parts)
    return (
        bx.data.ArrayLoader(train, batch_size, shuffle=True, drop_last=True),
        bx.data.ArrayLoader(val, batch_size),
    )


class Velocity(nn.Module):
    """The velocity of points [batch, 64] at times [batch] on their way to images of classes."""

    width: int = 256
    layers: int = 4

    @nn.compact
    def __call__(self, x, time, label):
        frequencies = 2.0 ** jnp.arange(6.0) * jnp.pi
        angles = time[:, None] * frequencies[None]
        told = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        told = nn.Dense(self.width)(told) + nn.Embed(CLASSES + 1, self.width)(label)
        hidden = nn.Dense(self.width)(x)
        for _ in range(self.layers):
            new = nn.LayerNorm()(hidden) + nn.Dense(self.width)(nn.silu(told))
            hidden = hidden + nn.Dense(self.width)(nn.silu(new))
        return nn.Dense(x.shape[-1])(nn.LayerNorm()(hidden))


class FlowMatching(bx.TrainerModule):
    rng_streams = ("flow",)

    def loss_function(self, model, batch, train):
        images, labels = batch["image"], batch["label"]
        # Of each step, and of each place in the validation data, which has the same each time.
        for_noise, for_time, for_label = jax.random.split(model.rng("flow"), 3)
        noise = jax.random.normal(for_noise, images.shape)
        time = jax.random.uniform(for_time, labels.shape)
        is_hidden = jax.random.bernoulli(for_label, 0.1, labels.shape)
        point = time[:, None] * images + (1 - time[:, None]) * noise
        velocity = model(point, time, jnp.where(is_hidden, NO_CLASS, labels))
        return jnp.mean((velocity - (images - noise)) ** 2, axis=-1), {}


def draw(model, labels, seed=0):
    """Images of these classes: from noise along the velocities, in small steps."""
    labels = jnp.asarray(labels, jnp.int32)
    hidden = jnp.full_like(labels, NO_CLASS)

    def step(x, time):
        times = jnp.full(labels.shape, time)
        with_class, without = model(x, times, labels), model(x, times, hidden)
        return x + (with_class + GUIDANCE * (with_class - without)) / STEPS, None

    noise = jax.random.normal(jax.random.key(seed), (len(labels), 64))
    times = jnp.arange(STEPS, dtype=jnp.float32) / STEPS
    return np.asarray(jax.jit(lambda x: jax.lax.scan(step, x, times)[0])(noise))


def plot_grid(images, path):
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    rows = images.reshape(CLASSES, 10, 8, 8)
    grid = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    axes.imshow(grid.transpose(0, 2, 1, 3).reshape(100, 100), cmap="gray_r", vmin=-1, vmax=1)
    axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    train_loader, val_loader = make_loaders()
    trainer = FlowMatching(
        model_class=Velocity,
        optimizer_hparams={"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2, "warmup": 0.05},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        check_val_every_n_epoch=max(1, epochs // 20),
        loop=bx.LoopOptions(ema=0.998),  # evaluated, kept and bound: the average of the parameters
    )
    trainer.train_model(train_loader, val_loader, num_epochs=epochs)

    model = trainer.bind_model()
    labels = np.repeat(np.arange(CLASSES), 100)
    images = draw(model, labels)
    real = train_loader.arrays
    judge = KNeighborsClassifier(5).fit(real["image"], real["label"])
    right = (judge.predict(images) == labels).sum()
    path = Path(trainer.log_dir, "digits.png")
    plot_grid(images.reshape(CLASSES, 100, 64)[:, :10], path)
    print(f"{right} of {len(labels)} digits are taken for what they were meant to be. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
