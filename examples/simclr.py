"""Learns to see without labels: contrastive learning, judged while it learns.

    python examples/simclr.py

Two views of an image, each turned, moved, sheared and partly covered at random, are to be told from
the views of all other images (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", 2020). A named evaluation fits a linear classifier to what the network has made of
a hundred images with labels, ten of each digit. Ends with its accuracy beside that of the same
classifier on pixels, and with a map of unseen digits (map.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE

import boltax as bx
from boltax.data import augment

LABELLED = 10  # of each class


# Data: 1,400 images of 8x8 pixels to learn from without their labels, and 397 to be judged by.
def read_data():
    images, labels = load_digits().images[..., None], load_digits().target
    order = np.random.default_rng(0).permutation(len(labels))
    return np.split((images / 16.0).astype(np.float32)[order], [1400]), np.split(
        labels[order], [1400]
    )


class Encoder(nn.Module):
    """What becomes of an image; and its projection, which only the loss looks at."""

    width: int = 16

    @nn.compact
    def __call__(self, images):
        x = images - 0.5
        for layer in range(3):
            x = nn.Conv(self.width * 2**layer, (3, 3), strides=min(layer, 1) + 1)(x)
            x = nn.gelu(nn.GroupNorm(8)(x))
        x = x.reshape(len(x), -1)
        features = nn.Dense(128)(x)
        return features, nn.Dense(32)(nn.gelu(nn.Dense(128)(features)))


def view(key, images):
    """Each image turned, moved, sheared, and partly covered."""
    to_map, to_cover = jax.random.split(key)
    spread = jnp.asarray([[0.2, 0.3, 0.8], [0.3, 0.2, 0.8]])
    change = spread[None] * jax.random.uniform(to_map, (len(images), 2, 3), minval=-1)
    field = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0), indexing="ij")) - 3.5
    moved = jnp.einsum("nij,jyx->niyx", change[..., :2], field) + change[..., 2, None, None]
    places = (moved + field[None] + 3.5)[..., None]  # of each pixel, in the image as it was
    nearness = nn.relu(1 - jnp.abs(places - jnp.arange(8.0).reshape(1, 1, 1, 1, 8)))
    rows, columns = nearness[:, 0], nearness[:, 1]  # bilinear: [images, y, x, from]
    images = jnp.einsum("nyxr,nyxc,nrck->nyxk", rows, columns, images)
    return augment.cutout(to_cover, images, size=3)


class SimCLR(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        one, other = jax.random.split(model.rng("views"))
        views = jnp.concatenate([view(one, batch), view(other, batch)])
        _, codes = model(views)
        codes = codes / (jnp.linalg.norm(codes, axis=-1, keepdims=True) + 1e-6)
        likeness = codes @ codes.T / 0.2 - 1e9 * jnp.eye(len(codes))  # not that with itself
        partner = jnp.roll(jnp.arange(len(codes)), len(batch))
        losses = jax.nn.logsumexp(likeness, 1) - likeness[jnp.arange(len(codes)), partner]
        is_found = likeness.argmax(1) == partner
        return losses.reshape(2, -1).mean(0), {"found": is_found.reshape(2, -1).mean(0)}

    def predict_function(self, model, batch):
        return model(batch)[0]


def first_of_each(labels):
    return np.concatenate([np.flatnonzero(labels == label)[:LABELLED] for label in range(10)])


def accuracy(features, labels, unseen, unseen_labels):
    """That of a linear classifier on unseen images."""
    centre, scale = features.mean(0), features.std() + 1e-6
    probe = LogisticRegression(max_iter=2000).fit((features - centre) / scale, labels)
    return probe.score((unseen - centre) / scale, unseen_labels)


def plot_map(maps, labels, path):
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(maps)), maps.items(), strict=True):
        for label in range(10):
            chosen = points[labels == label]
            axes.scatter(*chosen.T, s=28, color=f"C{label}", marker=f"${label}$", linewidths=0.3)
        axes.set_title(title, loc="left")
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def main(epochs, log_dir, width):
    (images, unseen), (labels, unseen_labels) = read_data()
    chosen = first_of_each(labels)
    train_loader = bx.data.ArrayLoader(images, 200, shuffle=True, drop_last=True)

    def probe(trainer, loader):
        seen, new = np.split(trainer.predict_model(loader), [len(chosen)])
        return {"acc": accuracy(seen, labels[chosen], new, unseen_labels)}

    trainer = SimCLR(
        model_class=Encoder,
        model_hparams={"width": width},
        optimizer_hparams={"lr": 3e-3, "weight_decay": 1e-4, "warmup": 0.1},
        exmp_input=images[:200],
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        check_val_every_n_epoch=max(1, epochs // 10),
        monitor=("train/loss", "min"),  # the labels choose nothing
    )
    judged = [np.concatenate([images[chosen], unseen])]
    probes = {"linear": bx.Evaluation(judged, function=probe)}
    trainer.train_model(train_loader, probes, num_epochs=epochs)

    pixels = [array.reshape(len(array), -1) for array in (images[chosen], unseen)]
    on_pixels = accuracy(pixels[0], labels[chosen], pixels[1], unseen_labels)
    features = trainer.predict_model([unseen])
    layout = TSNE(random_state=0, init="pca", learning_rate="auto")
    maps = {"by pixels": pixels[1], "by what it learned": features}
    path = Path(trainer.log_dir, "map.png")
    plot_map({n: layout.fit_transform(x) for n, x in maps.items()}, unseen_labels, path)
    print(f"With 100 labels: {probe(trainer, judged)['acc']:.3f}; on pixels {on_pixels:.3f}.")
    print(f"Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    main(**vars(parser.parse_args()))
