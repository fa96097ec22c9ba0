"""Trains a GAN to write digits: two networks against each other, each with an optimizer of its own.

    python examples/gan.py

The generator and the discriminator are two named parts of one model. `optimizer_hparams` gives each
its optimizer, and a training step of its own updates them one after the other. The samples go to
the logger as images (`tensorboard --logdir runs`). Writes samples.png into the folder of the run.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import boltax as bx
from boltax.callbacks import LearningRateMonitor, LogFigure
from boltax.data import ArrayLoader

LATENT_DIM = 32


class Generator(nn.Module):
    width: int

    @nn.compact
    def __call__(self, noise):  # [batch, latent] -> images [batch, 8, 8, 1]
        x = noise
        for _ in range(2):
            x = nn.gelu(nn.LayerNorm()(nn.Dense(self.width)(x)))
        return nn.sigmoid(nn.Dense(64)(x)).reshape(-1, 8, 8, 1)


class Discriminator(nn.Module):
    width: int

    @nn.compact
    def __call__(self, images):  # -> logits [batch]: above 0 for real
        x = images.reshape(-1, 64)
        for _ in range(2):
            x = nn.gelu(nn.Dense(self.width)(x))
        return nn.Dense(1)(x)[:, 0]


class GAN(nn.Module):
    width: int = 256

    def setup(self):
        self.generator = Generator(self.width)
        self.discriminator = Discriminator(self.width)

    def generate(self, noise):
        return self.generator(noise)

    def judge(self, images):
        return self.discriminator(images)

    def __call__(self, noise, train=True):
        return self.judge(self.generate(noise))


# Trainer: at the level of steps, because there are two losses, each for one part of the model.
class GANTrainer(bx.TrainerModule):
    def create_functions(self):
        def loss_d(part, state, real, noise):  # real images are real, and others are not
            params = {"params": {**state.params, "discriminator": part}}
            fake = state.apply_fn(params, noise, method="generate")
            on_real, on_fake = (
                state.apply_fn(params, images, method="judge") for images in (real, fake)
            )
            loss = (nn.softplus(-on_real) + nn.softplus(on_fake)).mean()
            fooled = {"acc_d": ((on_real > 0).mean() + (on_fake < 0).mean()) / 2.0}
            slope = jax.grad(lambda x: state.apply_fn(params, x, method="judge").sum())(real)
            return loss + 0.1 * (slope**2).sum((1, 2, 3)).mean(), fooled  # with R1 regularisation

        def loss_g(part, state, noise):  # the discriminator takes them for real
            params = {"params": {**state.params, "generator": part}}
            return nn.softplus(-state.apply_fn(params, noise)).mean()

        def train_step(state, batch):
            keys = jax.random.split(jax.random.fold_in(state.rng, state.step))
            shape = (len(batch), LATENT_DIM)
            part, noise = state.params["discriminator"], jax.random.normal(keys[0], shape)
            (of_d, metrics), grads = jax.value_and_grad(loss_d, has_aux=True)(
                part, state, batch, noise
            )
            state = state.apply_gradients(grads={"discriminator": grads}, loss=of_d)
            part, noise = state.params["generator"], jax.random.normal(keys[1], shape)
            of_g, grads = jax.value_and_grad(loss_g)(part, state, noise)
            state = state.apply_gradients(grads={"generator": grads}, loss=of_g)
            return state, {"loss_d": of_d, "loss_g": of_g, **metrics}

        def eval_step(state, batch):
            noise = jax.random.normal(state.rng, (len(batch), LATENT_DIM))
            return {"loss_g": loss_g(state.params["generator"], state, noise)}

        return train_step, eval_step

    def predict_function(self, model, batch):
        return model(batch, method="generate")


def grid(images, columns=16):
    """Images [n, 8, 8, 1] in rows, dark on white."""
    padded = 1.0 - np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    return np.vstack([np.hstack(row) for row in padded.reshape(-1, columns, 10, 10)])


def main(epochs, log_dir):
    images = (load_digits().images[..., None] / 16.0).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(64, LATENT_DIM)).astype(np.float32)
    train_loader = ArrayLoader(images, batch_size=64, shuffle=True, drop_last=True)
    adam = {"optimizer": "adam", "b1": 0.5, "schedule": "linear", "gradient_clip": None}

    trainer = GANTrainer(
        model_class=GAN,
        optimizer_hparams={
            "optimizers": {"generator": {**adam, "lr": 1e-3}, "discriminator": {**adam, "lr": 5e-4}}
        },
        exmp_input=[noise[:4]],
        logger_params={"base_log_dir": log_dir, "logger_type": "TensorBoard"},
        callbacks=[
            LearningRateMonitor(),  # lr/generator and lr/discriminator
            LogFigure("samples", lambda view: grid(view.predict(noise)), 25, hook="training"),
        ],
    )
    metrics = trainer.train_model(train_loader, num_epochs=epochs)
    print(f"The discriminator tells {metrics['train/acc_d']:.0%} of real and generated apart.")

    model = GANTrainer.load_from_checkpoint(trainer.log_dir).bind_model()
    rows = {"generated": np.asarray(model.generate(noise)), "real": images[: len(noise)]}
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for axes, (title, shown) in zip(figure.subplots(2), rows.items(), strict=True):
        axes.imshow(grid(shown), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], title=title)
    figure.savefig(Path(trainer.log_dir, "samples.png"), dpi=150)
    print(f"Wrote samples.png into {trainer.log_dir}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
