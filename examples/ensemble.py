"""Says how sure it is, and is right about that: twenty networks as one population.

    python examples/ensemble.py

Each network predicts how far a patient's diabetes will have progressed in a year, as a Gaussian;
they differ in their seeds alone and train in one program. Together they are a mixture (Lakshmi-
narayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
2017). Ends with how probable they find what was measured in patients whom they have not seen, and
how often that lies in the intervals that they name (calibration.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_diabetes

import boltax as bx
from boltax.tune import Population

MEMBERS = 20


# Data: ten measurements of 442 patients, which come with scikit-learn.
def make_loaders(batch_size=32):
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, val, test = np.split(order, [222, 292])
    centre, scale = y[train].mean(), y[train].std()
    data = (x / x[train].std(0)).astype(np.float32), ((y - centre) / scale).astype(np.float32)
    loaders = (
        bx.data.ArrayLoader([a[train] for a in data], batch_size, shuffle=True, drop_last=True),
        bx.data.ArrayLoader([a[val] for a in data], batch_size=50),
        bx.data.ArrayLoader([a[test] for a in data], batch_size=50),
    )
    return *loaders, (centre, scale)


class Gaussian(nn.Module):
    """The mean and the logarithm of the standard deviation of what is to come."""

    width: int = 64

    @nn.compact
    def __call__(self, x, train=True):
        for _ in range(2):
            x = nn.Dropout(0.1, deterministic=not train)(nn.silu(nn.Dense(self.width)(x)))
        mean, log_std = jnp.split(nn.Dense(2)(x), 2, axis=-1)
        return mean[:, 0], 3 * jnp.tanh(log_std[:, 0] / 3)


class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        x, y = batch
        mean, log_std = model(x)
        loss = 0.5 * ((y - mean) * jnp.exp(-log_std)) ** 2 + log_std + 0.5 * np.log(2 * np.pi)
        return loss, {"squared": (y - mean) ** 2}

    def derived_metrics(self, metrics):
        return {"rmse": metrics["squared"] ** 0.5}

    def predict_function(self, model, batch):
        mean, log_std = model(batch[0])
        return mean, jnp.exp(log_std)


def score(means, stds, y):
    """Of the mixture of members [members, examples]: the NLL of each, and where `y` lies in it."""
    logs = norm.logpdf(y, means, stds)
    return np.log(len(means)) - logsumexp(logs, axis=0), norm.cdf(y, means, stds).mean(0)


def covered(places, levels):
    """The share of examples in the central interval of each level."""
    return (2 * np.abs(places - 0.5) <= levels[:, None]).mean(1)


def plot(means, stds, y, path):
    levels = np.linspace(0, 1, 41)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    left.plot(levels, levels, color="black", linewidth=0.8, linestyle=":")
    for one in range(len(means)):
        curve = covered(score(means[[one]], stds[[one]], y)[1], levels)
        left.plot(levels, curve, color="#9ca3af", linewidth=0.7, label=None if one else "a member")
    curve = covered(score(means, stds, y)[1], levels)
    left.plot(levels, curve, color="#e07b28", linewidth=2.5, label="all twenty")
    left.set(xlabel="the interval is to hold", ylabel="it holds", aspect="equal")
    left.legend(frameon=False)

    mean, std = means.mean(0), np.sqrt((stds**2).mean(0) + means.var(0))
    order, rank = np.argsort(mean), np.arange(len(y))
    is_inside = np.abs(y - mean) <= 1.645 * std
    right.fill_between(
        rank,
        (mean - 1.645 * std)[order],
        (mean + 1.645 * std)[order],
        color="#dbeafe",
        label="90 %",
    )
    right.plot(rank, mean[order], color="#2f6db3", label="predicted")
    colors = np.where(is_inside, "#1f2937", "#dc2626")[order]
    right.scatter(rank, y[order], s=9, c=colors, zorder=3, label="measured")
    right.set(xlabel="patients, by what is predicted", ylabel="progression in a year")
    right.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    train_loader, val_loader, test_loader, (centre, scale) = make_loaders()
    trainer = Regressor(
        model_class=Gaussian,
        optimizer_hparams={"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2, "warmup": 0.1},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/loss", "min"),
        enable_progress_bar=False,
    )
    population = Population(trainer, [{"seed": seed} for seed in range(MEMBERS)])
    population.train_model(train_loader, val_loader, num_epochs=epochs)

    means, stds = population.predict(test_loader).outputs  # each [members, examples]
    means, stds, y = centre + scale * means, scale * stds, centre + scale * test_loader.arrays[1]
    together, places = score(means, stds, y)
    alone = np.mean([score(means[[m]], stds[[m]], y)[0].mean() for m in range(len(means))])
    print(f"NLL of a patient: {alone:.3f} by a member, {together.mean():.3f} by all {MEMBERS}.")
    rmse = np.sqrt(((means.mean(0) - y) ** 2).mean())
    inside = covered(places, np.array([0.9]))[0]
    path = Path(trainer.log_dir, "calibration.png")
    plot(means, stds, y, path)
    print(f"Off by {rmse:.1f}; {inside:.0%} lie in their 90 % intervals. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
