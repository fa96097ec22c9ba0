"""Time of a compiled training step of each kind of model, beside bare loops of JAX, as ratios.

    python benchmarks/model_kinds.py [--rounds 60]

All sides train the same MLP (64-256-256-10, batch 128, Adam, clipping) on one batch, in pieces of
20 steps that alternate in one process. The ratio is that of the lower quartiles of a side and of
the bare loop of its own library; "noise" is the same for two copies of one bare loop.
"""

import argparse
import statistics
import tempfile
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from overhead import Mlp, NnxMlp

import boltax as bx

BATCH, PIECE = 128, 20
EQX_MLP = {"in_size": 64, "out_size": 10, "width_size": 256, "depth": 2}


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return optax.softmax_cross_entropy_with_integer_labels(model(batch[0]), batch[1])


def bare_linen():
    model = Mlp()
    return model.init(jax.random.key(0), jnp.zeros((1, 64))), model.apply


def bare_nnx():
    graph, params = nnx.split(NnxMlp(rngs=nnx.Rngs(0)))
    return params, lambda params, images: nnx.merge(graph, params)(images)


def bare_equinox():
    params, static = eqx.partition(
        eqx.nn.MLP(**EQX_MLP, key=jax.random.key(0)), eqx.is_inexact_array
    )
    return params, lambda params, images: jax.vmap(eqx.combine(params, static))(images)


def by_hand(parts, batch):
    """A piece of a bare loop, as a function."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    params, apply = parts()

    def step(params, opt_state, images, labels):
        def loss_of(params):
            logits = apply(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, optax.tree.norm(grads)

    step = jax.jit(step, donate_argnums=(0, 1))
    held = [params, tx.init(params)]

    def piece():
        for _ in range(PIECE):
            held[:] = step(*held, *batch)[:2]
        jax.block_until_ready(held)

    return piece


def by_boltax(model_class, model_hparams, batch, folder):
    """A piece of steps of boltax, as a function."""
    trainer = Classifier(
        model_class,
        model_hparams,
        {"optimizer": "adam", "lr": 1e-3, "schedule": "constant"},
        exmp_input=tuple(np.asarray(array[:2]) for array in batch),
        logger_params={"base_log_dir": folder, "logger_type": "none"},
        enable_progress_bar=False,
    )
    trainer.init_optimizer(1, PIECE)
    held = [trainer.state]

    def piece():
        for _ in range(PIECE):
            held[0], _ = trainer.train_step(held[0], batch)
        jax.block_until_ready(held[0].params)

    return piece


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(BATCH, 64)), rng.integers(0, 10, BATCH)
    batch = jax.device_put((images.astype(np.float32), labels.astype(np.int32)))
    folder = tempfile.mkdtemp()
    sides = {
        "bare Linen": by_hand(bare_linen, batch),
        "boltax, Linen": by_boltax(Mlp, {}, batch, folder),
        "bare NNX": by_hand(bare_nnx, batch),
        "boltax, NNX": by_boltax(NnxMlp, {}, batch, folder),
        "bare Equinox": by_hand(bare_equinox, batch),
        "boltax, Equinox": by_boltax(bx.models.Vmap(eqx.nn.MLP), EQX_MLP, batch, folder),
        "noise": by_hand(bare_equinox, batch),
    }
    seconds = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name in sides if number % 2 else reversed(sides):
            began = time.perf_counter()
            sides[name]()
            if number > 1:  # the first rounds compile
                seconds[name].append(time.perf_counter() - began)
    low = {name: statistics.quantiles(times, n=4)[0] / PIECE for name, times in seconds.items()}
    print(f"jax {jax.__version__}, {jax.default_backend()}, {rounds} rounds of {PIECE} steps")
    for name, time_of in low.items():
        library = "Equinox" if name == "noise" else name.split()[-1]
        ratio = time_of / low[f"bare {library}"]
        print(f"{name:15}  {1e6 * time_of:7.0f} us a step  {ratio:.3f} of bare {library}")


if __name__ == "__main__":
    main()
