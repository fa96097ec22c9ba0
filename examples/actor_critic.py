"""Learns to balance a pole by trying: an actor and its critic, in a world written in JAX.

    python examples/actor_critic.py

A cart is pushed left or right so that the pole on it stays up (Barto, Sutton and Anderson, 1983).
The world is a function, so a step of training is 64 whole attempts on the device and one update
from them: no data come from anywhere (Mnih et al., "Asynchronous Methods for Deep Reinforcement
Learning", 2016; Schulman et al., "Generalized Advantage Estimation", 2016). Ends with how many of
1,000 new attempts stand to the end, and with what the critic thinks of each position (value.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import boltax as bx

LENGTH = 500  # steps of an attempt, 0.02 s each
DISCOUNT, TRACE, ENTROPY = 0.99, 0.95, 0.01


# World: a state [4] is the place and speed of the cart, the angle and turning of the pole.
def move(state, push):
    """The next state, by Euler's method; `push` is 0 or 1, to the left or to the right."""
    _, speed, angle, turning = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    force = (20.0 * push - 10.0 + 0.05 * turning**2 * sine) / 1.1
    bend = (9.8 * sine - cosine * force) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    change = jnp.stack([speed, force - 0.05 * bend * cosine / 1.1, turning, bend])
    return state + 0.02 * change


def has_fallen(state):
    return (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * jnp.pi / 180)


def begin(key, number):
    """States of so many attempts: the batches of training."""
    return jax.random.uniform(key, (number, 4), minval=-0.05, maxval=0.05)


class ActorCritic(nn.Module):
    width: int = 64

    @nn.compact
    def __call__(self, state):
        """Logits of both pushes, and the value: how long it will stand from here, discounted."""
        x = state @ jnp.diag(jnp.asarray([0.4, 0.5, 5.0, 0.5]))
        actor = nn.tanh(nn.Dense(self.width)(nn.tanh(nn.Dense(self.width)(x))))
        critic = nn.tanh(nn.Dense(self.width)(nn.tanh(nn.Dense(self.width)(x))))
        small = nn.initializers.normal(0.01)
        logits, value = nn.Dense(2, kernel_init=small)(actor), nn.Dense(1)(critic)
        return logits, value[..., 0] / (1 - DISCOUNT)


def attempt(act, state, key):
    """States [time, 4] and pushes [time] of one attempt; whether it stood before and after them."""

    def step(carry, key):
        state, stood = carry
        push = act(state, key)
        after = move(state, push.astype(jnp.float32))
        stands = stood & ~has_fallen(after)
        return (after, stands), (state, push, stood, stands)

    return jax.lax.scan(step, (state, jnp.array(True)), jax.random.split(key, LENGTH))[1]


class Balance(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        def act(state, key):
            logits, _ = model(state, mutable=False)
            return jax.random.categorical(key, logits) if train else logits.argmax(-1)

        keys = jax.random.split(model.rng("pushes"), len(batch))
        tried = jax.vmap(attempt, (None, 0, 0))(act, batch, keys)
        states, pushes, stood, stands = jax.lax.stop_gradient(tried)  # [batch, time, ...]
        logits, values = model(states)
        advantages = jax.lax.stop_gradient(advantages_of(values, stands))
        logs = nn.log_softmax(logits)
        chosen = jnp.take_along_axis(logs, pushes[..., None], axis=-1)[..., 0]
        entropy = -(jnp.exp(logs) * logs).sum(-1)
        error = (jax.lax.stop_gradient(values) + advantages - values) * (1 - DISCOUNT)
        scale = advantages.std(where=stood) + 1e-3
        losses = -chosen * advantages / scale - ENTROPY * entropy + 5 * error**2
        metrics = {"length": stands.sum(-1), "stands": stands[:, -1]}
        return (losses.sum(where=stood), stood.sum()), metrics


def advantages_of(values, stands):
    """How much better each push was than expected, [batch, time]: a reward of 1 for each step."""
    after = jnp.concatenate([values[:, 1:], values[:, -1:]], axis=1)  # the end of time is no fall
    surprise = 1 + DISCOUNT * after * stands.astype(values.dtype) - values

    def back(advantage, now):
        advantage = now[0] + DISCOUNT * TRACE * jnp.where(now[1], advantage, 0.0)
        return advantage, advantage

    start = jnp.zeros(len(values))
    return jax.lax.scan(back, start, (surprise.T, stands.T), reverse=True)[1].T


def plot_value(trainer, path, side=101):
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    left.plot(*np.array([(row["step"], row["train/length"]) for row in trainer.run.history]).T)
    left.set(xlabel="updates", ylabel="steps that an attempt stands", ylim=(0, LENGTH * 1.05))
    states = np.zeros((side, side, 4), np.float32)
    states[..., 3], states[..., 2] = np.mgrid[-2 : 2 : side * 1j, -0.2094 : 0.2094 : side * 1j]
    model, corners = trainer.bind_model(), states[10::40, 10::40].reshape(-1, 4)
    image = right.imshow(model(states)[1], origin="lower", extent=(-12, 12, -2, 2), aspect="auto")
    figure.colorbar(image, label="value")
    keys = jax.random.split(jax.random.key(0), len(corners))
    tried = jax.vmap(attempt, (None, 0, 0))(lambda s, _: model(s)[0].argmax(-1), corners, keys)
    for states, stood in zip(np.asarray(tried[0]), np.asarray(tried[2]), strict=True):
        shown = states[stood][:50]
        right.plot(np.rad2deg(shown[:, 2]), shown[:, 3], color="white", linewidth=0.8)
    right.set(xlabel="angle of the pole, degrees", ylabel="its turning, radians a second")
    figure.savefig(path, dpi=130)


def main(epochs, log_dir, width):
    train_loader = bx.data.Generated(begin, batch_size=64, num_batches=10)
    val_loader = bx.data.Generated(begin, batch_size=200, num_batches=1, seed=1)
    test_loader = bx.data.Generated(begin, batch_size=1000, num_batches=1, seed=2)
    trainer = Balance(
        model_class=ActorCritic,
        model_hparams={"width": width},
        optimizer_hparams={"optimizer": "adam", "lr": 3e-3, "gradient_clip": 0.5},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/length", "max"),
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)
    path = Path(trainer.log_dir, "value.png")
    plot_value(trainer, path)
    print(f"{1000 * metrics['test/stands']:.0f} of 1,000 stand for {LENGTH} steps. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--width", type=int, default=64, help="of the network")
    main(**vars(parser.parse_args()))
