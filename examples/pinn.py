"""Solves an equation without data: Burgers' shock by a physics-informed network.

    python examples/pinn.py

A wave u(x, t) with u_t + u u_x = 0.01 / pi u_xx steepens into a jump. The network is only told the
equation, at points that are drawn anew in each step on the device (Raissi et al., "Physics-informed
neural networks", 2019); what holds at the beginning and at the ends is built into it. Ends with its
distance from the exact solution, and with both fields beside each other (field.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import boltax as bx

VISCOSITY = 0.01 / np.pi


# Data: points in -1 < x < 1, 0 < t < 1; and where the exact solution is known, a grid of them.
def sample(key, batch_size):
    x, t = jax.random.uniform(key, (2, batch_size))
    return {"x": 2 * x - 1, "t": t}


def exact(x, t, nodes=100):
    """The solution by Cole and Hopf, integrated by Gauss and Hermite; arrays of one shape."""
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    y = x[..., None] - z * np.sqrt(4 * VISCOSITY * t[..., None])
    weights = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * VISCOSITY))
    return -(weights * np.sin(np.pi * y)).sum(-1) / weights.sum(-1)


def make_grid(columns=201, rows=256):
    t, x = np.meshgrid(np.linspace(0, 1, columns), np.linspace(-1, 1, rows))
    return {"x": x, "t": t, "u": exact(x, t)}


class Field(nn.Module):
    width: int = 40
    layers: int = 5

    @nn.compact
    def __call__(self, x, t):
        hidden = jnp.stack([x, 2 * t - 1], axis=-1)
        for _ in range(self.layers):
            hidden = nn.tanh(nn.Dense(self.width)(hidden))
        return t * (1 - x**2) * nn.Dense(1)(hidden)[:, 0] - jnp.sin(np.pi * x)


class Burgers(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        x, t = batch["x"], batch["t"]
        ones = jnp.ones_like(x)

        def u(x, t):
            return model(x, t, mutable=False)

        def u_x(x):
            return jax.jvp(lambda x: u(x, t), (x,), (ones,))[1]

        value, u_t = jax.jvp(lambda t: u(x, t), (t,), (ones,))
        slope, u_xx = jax.jvp(u_x, (x,), (ones,))
        residual = u_t + value * slope - VISCOSITY * u_xx
        if train:
            return residual**2, {}
        return residual**2, {"squared": (value - batch["u"]) ** 2, "power": batch["u"] ** 2}

    def derived_metrics(self, metrics):
        if "squared" not in metrics:
            return {}
        return {"distance": (metrics["squared"] / metrics["power"]) ** 0.5}

    def predict_function(self, model, batch):
        return model(batch["x"], batch["t"])


def plot_fields(grid, found, path):
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    first, second, third = figure.subplots(1, 3, sharey=True)
    extent = (0, 1, -1, 1)
    style = {"extent": extent, "origin": "lower", "aspect": "auto"}
    for axes, field, title in ((first, found, "found"), (second, grid["u"], "exact")):
        image = axes.imshow(field, cmap="RdBu_r", vmin=-1, vmax=1, **style)
        axes.set_title(title, loc="left")
    figure.colorbar(image, ax=second)
    off = np.log10(np.abs(found - grid["u"]) + 1e-12)
    image = third.imshow(off, cmap="magma", vmin=-5, vmax=-1, **style)
    third.set_title("difference, as a power of 10", loc="left")
    figure.colorbar(image, ax=third)
    for axes in (first, second, third):
        axes.set_xlabel("t")
    first.set_ylabel("x")
    figure.savefig(path, dpi=130)


def main(epochs, log_dir, width):
    grid = make_grid()
    flat = {name: array.ravel().astype(np.float32) for name, array in grid.items()}
    points = bx.data.Generated(sample, batch_size=1024, num_batches=100)
    val_loader = bx.data.ArrayLoader(flat, batch_size=len(flat["x"]) // 8)
    trainer = Burgers(
        model_class=Field,
        model_hparams={"width": width},
        optimizer_hparams={"optimizer": "adam", "lr": 3e-3, "warmup": 0.05},
        exmp_input={name: array[:8] for name, array in flat.items()},
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        check_val_every_n_epoch=max(1, epochs // 20),
        monitor=("val/loss", "min"),  # the equation: the solution chooses nothing
        loop=bx.LoopOptions(ema=0.995),
    )
    trainer.train_model(points, val_loader, num_epochs=epochs)
    found = trainer.predict_model(val_loader).reshape(grid["u"].shape)
    path = Path(trainer.log_dir, "field.png")
    plot_fields(grid, found, path)
    distance = np.linalg.norm(found - grid["u"]) / np.linalg.norm(grid["u"])
    print(f"Relative distance from the exact solution: {distance:.2e}. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=40, help="of the network")
    main(**vars(parser.parse_args()))
