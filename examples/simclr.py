"""Learns to see without labels: contrastive learning, judged while it learns.

    python examples/simclr.py

Two views of an image, each turned, moved, sheared and partly covered at random, are to be told from
the views of all other images (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", 2020). A named evaluation fits a linear classifier to what the network has made of
a hundred images with labels, ten of each digit. Ends with its accuracy on unseen images beside that
of the same classifier on pixels, for fewer and more labels as well (labels.png).
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

import boltax as bx
from boltax.data import augment

LABELLED = 10  # images of each class, for the classifier


# Data: 1,400 images of 8x8 pixels to learn from without their labels, and 397 to be judged by.
def read_data():
    images, labels = load_digits().images[..., None], load_digits().target
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images / 16.0).astype(np.float32)[order]
    return np.split(images, [1400]), np.split(labels[order], [1400])


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
    # bilinear: nearness is [images, row or column, y, x, from]
    images = jnp.einsum("nyxr,nyxc,nrck->nyxk", nearness[:, 0], nearness[:, 1], images)
    return augment.cutout(to_cover, images, size=3)


class SimCLR(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        views = [view(key, batch) for key in jax.random.split(model.rng("views"))]
        _, codes = model(jnp.concatenate(views))
        codes = codes / (jnp.linalg.norm(codes, axis=-1, keepdims=True) + 1e-6)
        likeness = codes @ codes.T / 0.2 - 1e9 * jnp.eye(len(codes))  # not that with itself
        partner = jnp.roll(jnp.arange(len(codes)), len(batch))
        losses = jax.nn.logsumexp(likeness, 1) - likeness[jnp.arange(len(codes)), partner]
        is_found = likeness.argmax(1) == partner
        return losses.reshape(2, -1).mean(0), {"found": is_found.reshape(2, -1).mean(0)}

    def predict_function(self, model, batch):
        return model(batch)[0]


def first_of_each(labels, number=LABELLED):
    return np.concatenate([np.flatnonzero(labels == label)[:number] for label in range(10)])


def accuracy(features, labels, unseen, unseen_labels):
    """That of a linear classifier on unseen images."""
    centre, scale = features.mean(0), features.std() + 1e-6
    probe = LogisticRegression(max_iter=2000).fit((features - centre) / scale, labels)
    return probe.score((unseen - centre) / scale, unseen_labels)


def plot(images, scores, path):
    """Digits with two views of each; accuracies by the number of labels of each digit."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    views = [images, *(view(jax.random.key(seed), images) for seed in (0, 1))]
    rows = [np.concatenate(np.asarray(row)[..., 0], axis=1) for row in views]
    left.imshow(np.concatenate(rows), cmap="gray_r", vmin=0, vmax=1)
    left.set_title("digits, and two views of each", loc="left")
    left.set_axis_off()
    for name, by_number in scores.items():
        right.plot(by_number.keys(), by_number.values(), "o-", label=name)
    right.set(xscale="log", xlabel="labels of each digit", ylim=(0.4, 1))
    right.set_xticks([*by_number], [*map(str, by_number)])
    right.set_xticks([], minor=True)
    right.set_title("accuracy on unseen digits", loc="left")
    right.legend()
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
    probes = {"linear": bx.Evaluation([np.concatenate([images[chosen], unseen])], function=probe)}
    trainer.train_model(train_loader, probes, num_epochs=epochs)

    features = np.split(trainer.predict_model([images, unseen]), [len(images)])
    pixels = [images.reshape(len(images), -1), unseen.reshape(len(unseen), -1)]
    scores = {"by what it learned": {}, "by pixels": {}}
    for number in (1, 2, 5, 10, 20, 50):
        few = first_of_each(labels, number)
        for name, (seen, new) in zip(scores, (features, pixels), strict=True):
            scores[name][number] = accuracy(seen[few], labels[few], new, unseen_labels)
    plot(images[:6], scores, path := Path(trainer.log_dir, "labels.png"))
    learned, plain = (by_number[LABELLED] for by_number in scores.values())
    print(f"With 100 labels: {learned:.3f}; on pixels {plain:.3f}. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    main(**vars(parser.parse_args()))
