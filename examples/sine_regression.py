"""Fits a noisy sine with a small MLP: the first example of the UvA guide, on its level of the API.

    python examples/sine_regression.py

`create_functions` returns pure steps of your own: full control over gradients and state, for which
boltax does everything else. (A loss alone would be enough here: see `mlp_optuna.py`.) Writes
fit.png into the folder of the run.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import boltax as bx
from boltax.data import ArrayLoader

# Data: points of a sine with noise. A batch is any pytree of arrays; here (x, y), both [batch, 1].
NOISE = 0.15


def sine(x):
    return np.sin(3.0 * x)


def make_data(num_points, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2.0, 2.0, size=(num_points, 1))
    y = sine(x) + NOISE * rng.normal(size=x.shape)
    return x.astype(np.float32), y.astype(np.float32)


# Model: any Flax module.
class Regressor(nn.Module):
    hidden_dims: tuple[int, ...]
    output_dim: int

    @nn.compact
    def __call__(self, x):
        for width in self.hidden_dims:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(self.output_dim)(x)


# Trainer: the two steps, and what its own constructor passes on. Both are stored with the run.
class RegressionTrainer(bx.TrainerModule):
    def __init__(self, hidden_dims, output_dim=1, **kwargs):
        super().__init__(
            model_class=Regressor,
            model_hparams={"hidden_dims": hidden_dims, "output_dim": output_dim},
            **kwargs,
        )

    def create_functions(self):
        def mean_squared_error(params, state, batch):
            x, y = batch
            return jnp.mean((state.apply_fn({"params": params}, x) - y) ** 2)

        def train_step(state, batch):
            loss, grads = jax.value_and_grad(mean_squared_error)(state.params, state, batch)
            return state.apply_gradients(grads=grads), {"loss": loss}

        def eval_step(state, batch):
            return {"loss": mean_squared_error(state.params, state, batch)}

        return train_step, eval_step


def plot_fit(model, train_data, path):
    x = np.linspace(-2.5, 2.5, 500, dtype=np.float32)[:, None]
    figure = Figure(figsize=(7, 3.8), layout="constrained")  # no pyplot: no display is needed
    axes = figure.subplots()
    axes.axvspan(-2.0, 2.0, color="#f3f4f6", label="where there is data")
    axes.plot(*train_data, ".", color="#9ca3af", markersize=3, label="training data")
    axes.plot(x, sine(x), "--", color="#374151", linewidth=1.5, label="sin(3x)")
    axes.plot(x, model(x), color="#e07b28", linewidth=2.5, label="the model")
    axes.set(xlabel="x", ylabel="y", xlim=(-2.5, 2.5), ylim=(-1.8, 1.8))
    figure.legend(loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(epochs, log_dir):
    train_data = make_data(1000, seed=0)
    train_loader = ArrayLoader(train_data, batch_size=64, shuffle=True)
    val_loader = ArrayLoader(make_data(200, seed=1), batch_size=200)
    test_loader = ArrayLoader(make_data(500, seed=2), batch_size=200)

    trainer = RegressionTrainer(
        hidden_dims=(64, 64),
        optimizer_hparams={"lr": 4e-3},
        exmp_input=next(iter(train_loader))[:1],  # what the model takes: x alone
        logger_params={"base_log_dir": log_dir},
        check_val_every_n_epoch=5,
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)

    # The folder of the run is enough to have the best model back, in this process or another.
    model = RegressionTrainer.load_from_checkpoint(trainer.log_dir).bind_model()
    plot_fit(model, train_data, Path(trainer.log_dir, "fit.png"))
    print(f"Test loss {metrics['test/loss']:.4f}; the noise alone makes {NOISE**2:.4f}.")
    print(f"Wrote {trainer.log_dir}/fit.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
