"""Lays out all digits on a plane: a variational autoencoder, measured in bits.

    python examples/vae.py

Each image becomes a Gaussian on a plane, and each point of the plane a distribution of images
(Kingma and Welling, "Auto-Encoding Variational Bayes", 2014). A pixel has one of 17 values, so the
loss is a number of bits that would store the image. Ends with the bits for each pixel of images
that it has not seen, and with what it draws at each point of the plane (plane.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri
from sklearn.datasets import load_digits

import boltax as bx

PIXELS, VALUES = 64, 17
DRAWS = 200  # for the closer bound at the end


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


class VAE(nn.Module):
    width: int = 128
    latent: int = 2

    def setup(self):
        def layers(last):
            return [nn.Dense(self.width), nn.gelu, nn.Dense(self.width), nn.gelu, nn.Dense(last)]

        self.encoder = nn.Sequential(layers(2 * self.latent))
        self.decoder = nn.Sequential(layers(2 * PIXELS))

    def encode(self, images):
        mean, log_std = jnp.split(self.encoder(images / 8.0 - 1.0), 2, axis=-1)
        return mean, jnp.clip(log_std, -6.0, 2.0)

    def decode(self, codes):
        """Where the pixels of images are, and how wide they spread, each [..., 64]."""
        places, log_width = jnp.split(self.decoder(codes), 2, axis=-1)
        return 8.0 + 8.0 * places, jnp.exp(jnp.clip(log_width, -3.0, 3.0))

    def __call__(self, images, noise):
        mean, log_std = self.encode(images)
        return mean, log_std, *self.decode(mean + jnp.exp(log_std) * noise)


def log_normal(x, mean=0.0, log_std=0.0):
    """Of all numbers of a code together."""
    scaled = (x - mean) * jnp.exp(-log_std)
    return (-0.5 * scaled**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def log_of_images(images, places, widths):
    """Pixels are logistic, rounded to whole numbers; what lies beyond 0 or 16 counts as these."""
    above = jnp.where(images == VALUES - 1, jnp.inf, (images + 0.5 - places) / widths)
    below = jnp.where(images == 0, -jnp.inf, (images - 0.5 - places) / widths)
    return jnp.log(nn.sigmoid(above) - nn.sigmoid(below) + 1e-6).sum(-1)


class Variational(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        noise = jax.random.normal(model.rng("codes"), (len(batch), self.model.latent))
        mean, log_std, places, widths = model(batch, noise)
        kl = 0.5 * (jnp.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(-1)
        loss = kl - log_of_images(batch, places, widths)  # the negative of the evidence lower bound
        return loss, {"bits": loss / (PIXELS * np.log(2)), "kl": kl}

    def predict_function(self, model, batch):
        """The logarithm of each image's probability, by many codes (Burda et al., 2016)."""
        noise = jax.random.normal(model.rng("codes"), (DRAWS, len(batch), self.model.latent))
        mean, log_std = model.encode(batch)

        def of_one(noise):
            codes = mean + jnp.exp(log_std) * noise
            log_ratio = log_normal(codes) - log_normal(codes, mean, log_std)
            pixels = model(codes, method="decode", mutable=False)
            return log_ratio + log_of_images(batch, *pixels)

        return jax.nn.logsumexp(jax.lax.map(of_one, noise), axis=0) - np.log(DRAWS)


def bits_of_pixels_alone(train, test):
    """What it takes when each pixel is coded by how often it has each value, on its own."""
    counts = 1.0 + (train[..., None] == np.arange(VALUES)).sum(0)
    logs = np.log2(counts / counts.sum(-1, keepdims=True))
    return -logs[np.arange(PIXELS), test.astype(int)].mean()


def plot_plane(model, path, side=20):
    places = ndtri((np.arange(side) + 0.5) / side).astype(np.float32)  # equally likely ones
    codes = np.stack(np.meshgrid(places, -places), axis=-1)
    images = np.clip(model.decode(codes)[0], 0, 16).reshape(side, side, 8, 8)
    images = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(images.transpose(0, 2, 1, 3).reshape(10 * side, -1), cmap="gray_r")
    axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    train_loader, val_loader, test_loader = make_loaders()
    trainer = Variational(
        model_class=VAE,
        optimizer_hparams={"lr": 2e-3, "weight_decay": 0.1, "warmup": 0.05},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/bits", "min"),
        check_val_every_n_epoch=max(1, epochs // 40),
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)
    closer = -trainer.predict_model(test_loader).mean() / (PIXELS * np.log(2))
    alone = bits_of_pixels_alone(train_loader.arrays, test_loader.arrays)
    path = Path(trainer.log_dir, "plane.png")
    plot_plane(trainer.bind_model(), path)
    print(f"Bits a pixel: at most {metrics['test/bits']:.3f}, by {DRAWS} codes {closer:.3f}")
    print(f"(each pixel on its own: {alone:.3f}). Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
