"""Steps per second of `TrainerModule.train_epoch` beside a hand-written loop, as ratios.

    python benchmarks/overhead.py [--rounds 7]

The hand-written loop donates its state, runs asynchronously and accumulates its metrics on the
device. Both sides train the same MLP (64-256-256-10, batch 128, Adam) on the same arrays in memory,
alternately in one process; each clock stops when the device is done. boltax runs with its
defaults: records each 50 steps, TensorBoard, progress bar (here without a terminal, so as lines).
A ratio above 1 means that boltax is faster.
"""

import argparse
import contextlib
import io
import itertools
import statistics
import tempfile
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import boltax as bx

BATCH, EXAMPLES = 128, 60_000


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (256, 256):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


class NnxMlp(nnx.Module):
    def __init__(self, *, rngs):
        pairs = itertools.pairwise((64, 256, 256, 10))
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        logits = model(batch[0])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return loss, {"acc": logits.argmax(-1) == batch[1]}


def by_hand(arrays):
    """One epoch of the hand-written loop, as a function."""
    model, tx = Mlp(), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    params = model.init(jax.random.key(0), jnp.zeros((1, 64)))

    @jax.jit
    def start():
        return jnp.zeros(()), jnp.zeros((), jnp.int32)

    def step(state, totals, images, labels):
        def loss_of(params):
            logits = model.apply(params, images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits.argmax(-1) == labels).sum()

        params, opt_state = state
        (loss, hits), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        state = optax.apply_updates(params, updates), opt_state
        return state, (totals[0] + loss, totals[1] + hits)

    step = jax.jit(step, donate_argnums=(0, 1))
    holder = [(params, tx.init(params))]
    rng = np.random.default_rng(0)

    def epoch():
        order, state, totals = rng.permutation(EXAMPLES), holder[0], start()
        for i in range(0, EXAMPLES - BATCH + 1, BATCH):
            rows = order[i : i + BATCH]
            state, totals = step(state, totals, *(array[rows] for array in arrays))
        holder[0] = state
        return jax.block_until_ready((state, totals))

    return epoch


def by_boltax(arrays, model_class, folder):
    """One epoch of boltax, as a function."""
    loader = bx.data.ArrayLoader(arrays, BATCH, shuffle=True, drop_last=True)
    trainer = Classifier(
        model_class,
        {},
        {"optimizer": "adam", "lr": 1e-3, "schedule": "constant"},
        exmp_input=tuple(array[:2] for array in arrays),
        logger_params={"base_log_dir": folder},
    )
    trainer.init_optimizer(1, len(loader))

    def epoch():
        metrics = trainer.train_epoch(loader)
        jax.block_until_ready(trainer.state.params)
        return metrics

    return epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, EXAMPLES).astype(np.int32)
    images = rng.normal(size=(EXAMPLES, 64)).astype(np.float32) + np.eye(10, 64)[labels]
    arrays = images.astype(np.float32), labels
    folder = tempfile.mkdtemp()
    with contextlib.redirect_stdout(io.StringIO()):
        sides = {
            "hand-written": by_hand(arrays),
            "boltax, Linen": by_boltax(arrays, Mlp, folder),
            "boltax, NNX": by_boltax(arrays, NnxMlp, folder),
        }
        seconds = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name in sides if number % 2 else reversed(sides):
                began = time.perf_counter()
                sides[name]()
                if number:  # the first round compiles
                    seconds[name].append(time.perf_counter() - began)
    steps = EXAMPLES // BATCH
    print(f"jax {jax.__version__}, {jax.default_backend()}, {rounds} rounds of {steps} steps")
    reference = seconds["hand-written"]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(reference, times, strict=True))
        print(f"{name:14}  {steps / statistics.median(times):7.0f} steps/s  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
