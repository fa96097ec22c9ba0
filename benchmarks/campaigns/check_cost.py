"""What the check for numbers that are not finite costs, beside a hand-written step without one.

Both sides run a number of steps on the same batch on the device, alternately in one process; each
clock stops when the device is done. On the side of boltax the host looks at each step as the
training loop does.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import boltax as bx
from boltax._base._chunks import Chunk, Plan
from boltax._base._trees import num_examples
from boltax._loop._nonfinite import NonFiniteWatch
from boltax._step._bodies import Training
from campaigns.score import Score

SIZES = {
    "64-256-256-10, batch 128": ((256, 256), 64, 128),
    "6 x 512, batch 64": (6 * (512,), 512, 64),
}
POLICIES = ("stop", "skip", "continue")
TARGET = 0.9


class Mlp(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


class Classifier(bx.TrainerModule):
    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        logits = model(batch[0])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return loss, {"acc": logits.argmax(-1) == batch[1]}


def compare(rounds: int, sizes: int, seed: int) -> Score:
    """Measures steps per second under each policy, as ratios to the hand-written step.

    Args:
        rounds: of which the median counts; a single one is no measurement, and fails nothing.
        sizes: how many of the models, the smallest first.
        seed: of the data.
    """
    score = Score("cost of the check", rounds, f"at least {TARGET} of the speed without one")
    found: list[str] = []
    for name, (widths, width, size) in list(SIZES.items())[:sizes]:
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(size, width)).astype(np.float32)
        batch = jax.device_put((images, rng.integers(0, 10, size).astype(np.int32)))
        with tempfile.TemporaryDirectory(prefix="boltax-check-") as work:
            sides = {"by hand": _by_hand(widths, batch)}
            for policy in POLICIES:
                sides[policy] = _by_boltax(widths, batch, policy, Path(work, policy))
            ratios = _ratios(sides, rounds)
        found.append("/".join(f"{ratio:.2f}" for ratio, _ in ratios.values()))
        for policy, (ratio, speed) in ratios.items():
            score.details.append(f"{name}: {policy} {ratio:.2f} ({speed:.0f} steps/s)")
            if ratio < TARGET and rounds > 1:
                score.failures.append(f"{name}: {policy} {ratio:.2f}")
    score.result = f"{', '.join(found)} ({'/'.join(['none', *POLICIES])})"
    return score


def _ratios(sides: dict[str, Callable[[int], None]], rounds: int) -> dict[str, tuple[float, float]]:
    """For each side, the median ratio to the first one's speed, and its median speed."""
    first = next(iter(sides))
    for side in sides.values():
        side(3)  # compiles
    began = time.perf_counter()
    sides[first](20)
    steps = max(20, int(20 * 0.5 / (time.perf_counter() - began)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 else reversed(sides):
            began = time.perf_counter()
            sides[name](steps)
            seconds[name].append(time.perf_counter() - began)
    return {
        name: (
            statistics.median(a / b for a, b in zip(seconds[first], times, strict=True)),
            steps / statistics.median(times),
        )
        for name, times in seconds.items()
    }


def _by_hand(widths: tuple[int, ...], batch: Any) -> Callable[[int], None]:
    model, tx = Mlp(widths), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def step(state: Any, totals: Any, batch: Any) -> Any:
        def loss_of(params: Any) -> Any:
            logits = model.apply(params, batch[0])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()
            return loss, (logits.argmax(-1) == batch[1]).sum()

        params, opt_state = state
        (loss, hits), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        totals = totals[0] + loss, totals[1] + hits, totals[2] + optax.global_norm(grads)
        return (optax.apply_updates(params, updates), opt_state), totals

    compiled = jax.jit(step, donate_argnums=(0, 1))
    params = model.init(jax.random.key(0), batch[0])
    zero = jnp.zeros(())
    held = [((params, tx.init(params)), (zero, jnp.zeros((), jnp.int32), zero + 0))]

    def steps(number: int) -> None:
        for _ in range(number):
            held[0] = compiled(*held[0], batch)
        jax.block_until_ready(held[0])

    return steps


def _by_boltax(
    widths: tuple[int, ...], batch: Any, policy: str, folder: Path
) -> Callable[[int], None]:
    trainer = Classifier(
        Mlp,
        {"widths": widths},
        {"optimizer": "adam", "lr": 1e-3, "schedule": "constant"},
        exmp_input=batch,
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(on_nonfinite=policy, sanity_check=False),
        checkpoint=bx.CheckpointOptions(keep_last=0),
    )
    trainer.train_model([batch], num_epochs=1)
    run = trainer.run
    assert run is not None
    chunk = Chunk(Plan(), batch, [{"epoch": 1, "batch": 1}], num_examples(batch))
    empty = partial(trainer._made.steps.empty_train, trainer.state, chunk, None)

    def steps(number: int) -> None:
        metrics, watch = empty(), NonFiniteWatch(trainer._single(run))  # noqa: SLF001
        for _ in range(number):
            carry = Training(trainer.state, metrics)
            (trainer.state, metrics), is_bad = trainer._made.steps.train((), carry, chunk)
            watch.add(chunk, is_bad, None)
        watch.look(up_to=run.step)
        jax.block_until_ready(trainer.state)

    return steps
