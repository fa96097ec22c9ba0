"""Memory and time of learned optimizers beside Adam, on a small MLP and a small CNN, as ratios.

    BOLTAX_LOPT_WEIGHTS=FOLDER python benchmarks/learned_optimizers.py [--rounds 7]

Each step is forward, backward and update, compiled with its state donated. All optimizers of a
model take turns in one process; a ratio is the median over the rounds of this time to that of Adam
in the same round. "update" is the time of the update alone. An optimizer whose weights are not
found is left out, and said so. VeLO's time and memory do not depend on the values of its weights.
"""

import argparse
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from boltax import optim
from boltax.errors import OptimizerError

BATCH, STEPS = 128, 10


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        for width in (256, 256):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1)):
            x = nn.Conv(features, (3, 3), (stride, stride), use_bias=False)(x)
            x = nn.relu(nn.LayerNorm()(x))
        return nn.Dense(10)(x.mean((1, 2)))


MODELS = {"MLP 64-256-256-10": (Mlp(), (8, 8, 1)), "CNN of 7 convolutions": (Cnn(), (16, 16, 3))}


def optimizers():
    """By name, those that can be built here."""
    found = {"adam": optax.with_extra_args_support(optax.adam(1e-3))}
    for name in ("celo_adam", "celo", "velo"):
        try:
            found[name] = optim.build({"optimizer": name}, total_steps=10_000).tx
        except OptimizerError as error:
            print(f"{name} is left out: {error}\n")
    return found


class Side:
    """One optimizer on one model, compiled."""

    def __init__(self, model, shape, tx):
        rng = np.random.default_rng(0)
        self.batch = (
            jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32),
            jnp.asarray(rng.integers(0, 10, BATCH)),
        )
        params = model.init(jax.random.key(0), self.batch[0])
        self.carry = params, tx.init(params)
        self.grads = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
        self.numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
        self.tensors = len(jax.tree.leaves(params))
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.carry[1]))

        def update(carry, grads, loss):
            updates, state = tx.update(grads, carry[1], carry[0], value=loss)
            return optax.apply_updates(carry[0], updates), state

        def step(carry, images, labels):
            def loss_of(params):
                logits = model.apply(params, images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            loss, grads = jax.value_and_grad(loss_of)(carry[0])
            return update(carry, grads, loss)

        began = time.process_time()  # of all threads: other work on the machine counts for nothing
        self.step = jax.jit(step, donate_argnums=0).lower(self.carry, *self.batch).compile()
        self.compile_seconds = time.process_time() - began
        alone = jax.jit(update, donate_argnums=0)
        self.alone = alone.lower(self.carry, self.grads, jnp.ones(())).compile()
        self.temp_bytes = self.step.memory_analysis().temp_size_in_bytes
        self.seconds, self.update_seconds = [], []

    def run(self, is_counted):
        for program, arguments, times in (
            (self.step, self.batch, self.seconds),
            (self.alone, (self.grads, jnp.ones(())), self.update_seconds),
        ):
            began = time.perf_counter()
            for _ in range(STEPS):
                self.carry = program(self.carry, *arguments)
            jax.block_until_ready(self.carry)
            if is_counted:
                times.append((time.perf_counter() - began) / STEPS)


def ratio(times, reference):
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"jax {jax.__version__}, {jax.default_backend()}, {rounds} rounds of {STEPS} steps")
    for title, (model, shape) in MODELS.items():
        sides = {name: Side(model, shape, tx) for name, tx in optimizers().items()}
        for number in range(rounds + 1):
            for side in sides.values() if number % 2 else reversed(sides.values()):
                side.run(is_counted=number > 0)
        adam = sides["adam"]
        print(f"\n{title}, batch {BATCH}: {adam.numbers:,} parameters, {adam.tensors} tensors\n")
        measures = ("state", "temporary", "step", "update")
        print("| | " + " | ".join(f"{measure} | / Adam" for measure in measures) + " | compile |")
        print("|---" * (2 + 2 * len(measures)) + "|")
        for name, side in sides.items():
            cells = [
                *(f"{side.state_bytes / 1e6:.2f} MB", f"{side.state_bytes / adam.state_bytes:.2f}"),
                *(f"{side.temp_bytes / 1e6:.2f} MB", f"{side.temp_bytes / adam.temp_bytes:.2f}"),
                f"{1e3 * statistics.median(side.seconds):.2f} ms",
                f"{ratio(side.seconds, adam.seconds):.2f}",
                f"{1e3 * statistics.median(side.update_seconds):.2f} ms",
                f"{ratio(side.update_seconds, adam.update_seconds):.2f}",
                f"{side.compile_seconds:.1f} s",
            ]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
