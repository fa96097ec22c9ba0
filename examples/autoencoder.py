"""Trains a convolutional autoencoder and looks at its reconstructions while it learns.

    python examples/autoencoder.py

A hook logs them as images after each validation: `tensorboard --logdir runs` shows how they get
sharp. Writes reconstructions.png and morphs.png into the folder of the run.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import boltax as bx
from boltax.data import ArrayLoader


# Model: any methods beside `__call__` may be used, here `encode` and `decode`.
class Autoencoder(nn.Module):
    width: int = 32
    latent_dim: int = 16

    def setup(self):
        self.encoder = nn.Sequential(
            [
                nn.Conv(self.width, (3, 3), strides=2),  # 8x8 -> 4x4 pixels
                nn.gelu,
                nn.Conv(2 * self.width, (3, 3), strides=2),  # -> 2x2
                nn.gelu,
                lambda x: x.reshape(x.shape[0], -1),
                nn.Dense(self.latent_dim),
            ]
        )
        self.decoder = nn.Sequential(
            [
                nn.Dense(2 * 2 * 2 * self.width),
                nn.gelu,
                lambda x: x.reshape(x.shape[0], 2, 2, -1),
                nn.ConvTranspose(self.width, (3, 3), strides=(2, 2)),
                nn.gelu,
                nn.ConvTranspose(1, (3, 3), strides=(2, 2)),
                nn.sigmoid,
            ]
        )

    def encode(self, images):
        return self.encoder(images)

    def decode(self, codes):
        return self.decoder(codes)

    def __call__(self, images):
        return self.decode(self.encode(images))


# Trainer: a batch is an array of images [batch, 8, 8, 1], without labels.
class AutoencoderTrainer(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        squared_error = ((model(batch) - batch) ** 2).mean(axis=(1, 2, 3))  # one for each image
        return squared_error, {"rms": squared_error**0.5}

    def predict_function(self, model, batch):
        codes = model(batch, method="encode")
        return {"codes": codes, "images": model(codes, method="decode")}

    def on_training_start(self):
        self.pictures = {}

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        images = next(iter(val_loader))[:12]
        reconstructions = self.predict_batch(images)["images"]
        picture = np.vstack([strip(images), strip(reconstructions)]).repeat(6, 0).repeat(6, 1)
        self.logger.log_image("reconstructions", picture, step=int(self.state.step))
        self.pictures[epoch_idx] = reconstructions


def strip(images):
    """Images [n, 8, 8, 1] side by side, dark on white, with a margin of a pixel."""
    return 1.0 - np.hstack(np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))))


def plot_rows(rows, path):
    """Draws a title to images [n, 8, 8, 1] as one row of them each."""
    figure = Figure(figsize=(9, 0.85 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), squeeze=False)[:, 0]
    for axes, (title, images) in zip(grid, rows.items(), strict=True):
        axes.imshow(strip(images), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(title, rotation=0, ha="right", va="center")
        axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    images, labels = load_digits().images[..., None], load_digits().target
    images = (images / 16.0).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, val, test = order[:1300], order[1300:1500], order[1500:]
    train_loader = ArrayLoader(images[train], batch_size=64, shuffle=True, drop_last=True)
    val_loader = ArrayLoader(images[val], batch_size=200)
    test_loader = ArrayLoader(images[test], batch_size=200)

    trainer = AutoencoderTrainer(
        model_class=Autoencoder,
        optimizer_hparams={"optimizer": "adam", "lr": 5e-3, "warmup": 0.1},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": "TensorBoard"},
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)
    print(f"Test: each pixel is off by {metrics['test/rms']:.3f} (root mean square) of 1.")

    # How the reconstructions got sharp: after epochs 1, 2, 4, ... and the last one.
    chosen = [e for e in trainer.pictures if e == epochs or e & (e - 1) == 0]
    rows = {"original": images[val][:12]} | {f"epoch {e}": trainer.pictures[e] for e in chosen}
    plot_rows(rows, Path(trainer.log_dir, "reconstructions.png"))

    # From one digit to another through the space of codes, with the model of the best epoch.
    model = AutoencoderTrainer.load_from_checkpoint(trainer.log_dir).bind_model()
    share = np.linspace(0.0, 1.0, 12, dtype=np.float32)[:, None]
    morphs = {}
    for first, last in [(0, 6), (1, 4), (3, 8), (9, 7)]:
        codes = model.encode(np.stack([images[test][labels[test] == d][0] for d in (first, last)]))
        morphs[f"{first} to {last}"] = model.decode((1.0 - share) * codes[:1] + share * codes[1:])
    plot_rows(morphs, Path(trainer.log_dir, "morphs.png"))
    print(f"Wrote reconstructions.png and morphs.png into {trainer.log_dir}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
