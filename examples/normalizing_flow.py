"""Bends noise into digits, and back without loss: a normalising flow, measured in bits.

    python examples/normalizing_flow.py

Eight layers, each of which moves and stretches one half of the pixels by what the other half says
(Dinh et al., "Density Estimation Using Real NVP", 2017), so that the density of each image is known
exactly. Ends with the bits for each pixel of images that it has not seen, on the scale of `vae.py`,
and with how noise becomes digits, layer by layer (layers.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import boltax as bx

PIXELS, VALUES = 64, 17
EDGE = 0.01  # how far from 0 and 1 values stay, of which the logit is taken


# Data: 1,797 images that come with scikit-learn, whole numbers from 0 to 16.
def make_loaders(batch_size=64):
    images = load_digits().data.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, val, test = (images[part] for part in np.split(order, [1297, 1497]))
    return (
        bx.data.ArrayLoader(train, batch_size, shuffle=True, drop_last=True),
        bx.data.ArrayLoader(val, batch_size=100),
        bx.data.ArrayLoader(test, batch_size=100),
    )


class Coupling(nn.Module):
    """Stretches and moves the pixels outside of a mask by a network of those inside."""

    mask: tuple[bool, ...]
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x, train, back=False):
        mask = jnp.asarray(self.mask, jnp.float32)[None]
        hidden = mask * x
        for _ in range(2):
            hidden = nn.gelu(nn.Dense(self.width)(hidden))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        none = nn.initializers.zeros  # at the beginning a layer changes nothing
        log_scale, shift = jnp.split(nn.Dense(2 * PIXELS, kernel_init=none)(hidden), 2, axis=-1)
        log_scale, shift = (1 - mask) * jnp.tanh(log_scale), (1 - mask) * shift
        if back:
            return (x - shift) * jnp.exp(-log_scale)
        return x * jnp.exp(log_scale) + shift, log_scale.sum(-1)


class Flow(nn.Module):
    width: int = 128
    layers: int = 8
    dropout: float = 0.2

    def setup(self):
        # Every other layer is told a chessboard's black fields, or a random half.
        board = np.indices((8, 8)).sum(0).ravel() % 2
        halves = [np.random.default_rng(n).permutation(PIXELS) < 32 for n in range(self.layers)]
        masks = [board == 0, board == 1] + [m for half in halves for m in (half, ~half)]
        self.steps = [
            Coupling(tuple(map(bool, mask)), self.width, self.dropout)
            for mask in masks[: self.layers]
        ]

    def __call__(self, x, train=True):
        """Noise [batch, 64] of values between 0 and 1, and the logarithm of what volume grew by."""
        x = EDGE + (1 - 2 * EDGE) * x
        grown = (np.log(1 - 2 * EDGE) - jnp.log(x) - jnp.log1p(-x)).sum(-1)
        x = jnp.log(x) - jnp.log1p(-x)
        for step in self.steps:
            x, more = step(x, train)
            grown = grown + more
        return x, grown

    def draw(self, noise):
        """What noise is before each layer, and in the end, as values between 0 and 1."""
        stages = [noise]
        for step in reversed(self.steps):
            stages.append(step(stages[-1], train=False, back=True))
        return (nn.sigmoid(jnp.stack(stages)) - EDGE) / (1 - 2 * EDGE)


class Density(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        # A pixel's value is spread over its place, so that a density says how probable it is.
        spread = jax.random.uniform(model.rng("spread"), batch.shape)
        noise, grown = model((batch + spread) / VALUES)
        log_density = (-0.5 * noise**2 - 0.5 * np.log(2 * np.pi)).sum(-1) + grown
        loss = -log_density + PIXELS * np.log(VALUES)
        return loss, {"bits": loss / (PIXELS * np.log(2))}


def plot_layers(stages, path):
    rows, columns = stages.shape[:2]
    images = np.pad(stages.reshape(rows, columns, 8, 8), [(0, 0), (0, 0), (1, 1), (1, 1)])
    figure = Figure(figsize=(columns / 2, rows / 2), layout="constrained")
    axes = figure.subplots()
    grid = images.transpose(0, 2, 1, 3).reshape(10 * rows, 10 * columns)
    axes.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main(epochs, log_dir, width):
    train_loader, val_loader, test_loader = make_loaders()
    trainer = Density(
        model_class=Flow,
        model_hparams={"width": width},
        optimizer_hparams={"lr": 2e-3, "weight_decay": 1e-2, "warmup": 0.05},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/bits", "min"),
        check_val_every_n_epoch=max(1, epochs // 40),
        loop=bx.LoopOptions(ema=0.99),
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)
    noise = 0.7 * jax.random.normal(jax.random.key(0), (16, PIXELS))  # nearer to what is usual
    path = Path(trainer.log_dir, "layers.png")
    plot_layers(np.asarray(trainer.bind_model().draw(noise)), path)
    print(f"{metrics['test/bits']:.3f} bits a pixel of images it has not seen. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=128, help="of the network")
    main(**vars(parser.parse_args()))
