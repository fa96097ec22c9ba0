"""How long a save holds up the training, beside orbax's own and `numpy.savez`.

All sides train the same state with the same compiled step, in turns in one process: some steps
without a save, then as many with one. What counts is the time inside the call that saves, how much
longer those steps take in all, and the time until the save is on the disk.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp

import boltax as bx
from boltax._base._chunks import Chunk, Plan
from boltax._base._trees import num_examples
from boltax._loop._saving import save_resume, state_tree
from boltax._step._bodies import Training
from campaigns.score import Score

BEFORE, AFTER = 2, 14
"""Steps before a save and after it: enough that it ends meanwhile."""
MOST_SECONDS, INTERVAL, MOST_SHARE = 0.1, 300.0, 0.02


class Scale(nn.Module):
    """As many parameters as wanted, and little to compute with them."""

    size: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return (x * self.param("scale", nn.initializers.normal(), (self.size,))).sum()[None]


class Trainer(bx.TrainerModule):
    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        return model(batch) ** 2, {}


class Side(NamedTuple):
    """A way to save: what the loop calls, and what waits until all is on the disk."""

    save: Callable[[], None]
    wait: Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """One save: seconds inside the call, longer steps in all, and until it was on the disk."""

    inside: float
    longer: float
    durable: float


def compare(megabytes: tuple[int, ...], rounds: int) -> Score:
    """Measures each side in turn.

    Args:
        megabytes: sizes of the state, with the optimizer's moments.
        rounds: of which the medians count; a single one is no measurement, and fails nothing.
    """
    target = f"{MOST_SECONDS} s inside, {MOST_SHARE:.0%} of 5 minutes in all"
    score = Score("a save beside orbax and np.savez", rounds * len(megabytes), target)
    found: list[str] = []
    for size in megabytes:
        with tempfile.TemporaryDirectory(prefix="boltax-stall-") as work:
            medians = _measure(size, rounds, Path(work))
        own = medians["boltax"]
        found.append(f"{size} MB: {own.inside:.3f} s inside, {own.longer:+.2f} s in all")
        for name, side in medians.items():
            score.details.append(
                f"{size} MB, {name}: inside {side.inside:.3f} s ({_ratio(side.inside, own.inside)}"
                f" x boltax), steps longer by {side.longer:.2f} s, on the disk after "
                f"{side.durable:.2f} s ({_ratio(side.durable, own.durable)} x boltax)"
            )
        is_slow = own.inside > MOST_SECONDS or own.longer > MOST_SHARE * INTERVAL
        if is_slow and rounds > 1:
            score.failures.append(found[-1])
    score.result = "; ".join(found)
    return score


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}"


def _measure(megabytes: int, rounds: int, work: Path) -> dict[str, Measured]:
    size = megabytes * 2**20 // 12  # float32, and two moments
    trainer = Trainer(
        Scale,
        {"size": size},
        {"optimizer": "adam", "lr": 1e-3, "schedule": "constant"},
        exmp_input=np.ones(1, np.float32),
        logger_params={"log_dir": str(work / "boltax"), "logger_type": "csv"},
        enable_progress_bar=False,
        checkpoint=bx.CheckpointOptions(every_minutes=None),
    )
    trainer.train_model([np.ones(1, np.float32)], num_epochs=1)
    trainer._made.saver.wait()
    batch = jax.device_put(np.ones(1, np.float32))
    found: dict[str, list[Measured]] = {}
    with _sides(trainer, work) as sides:
        for number in range(rounds + 1):
            for name in sides if number % 2 else reversed(sides):
                measured = _one_save(trainer, batch, sides[name])
                if number:  # the first round compiles, and makes memory that is used again
                    found.setdefault(name, []).append(measured)
    return {
        name: Measured(
            *(
                statistics.median(getattr(one, field) for one in found[name])
                for field in ("inside", "longer", "durable")
            )
        )
        for name in sides
    }


def _one_save(trainer: Trainer, batch: Any, side: Side) -> Measured:
    began = time.perf_counter()
    _steps(trainer, batch, BEFORE + AFTER)
    without = time.perf_counter() - began
    began = time.perf_counter()
    _steps(trainer, batch, BEFORE)
    called = time.perf_counter()
    side.save()
    inside = time.perf_counter() - called
    _steps(trainer, batch, AFTER)
    longer = time.perf_counter() - began - without
    side.wait()
    return Measured(inside, longer, time.perf_counter() - called)


def _steps(trainer: Trainer, batch: Any, number: int) -> None:
    chunk = Chunk(Plan(), batch, [{"epoch": 1, "batch": 1}], num_examples(batch))
    metrics = trainer._made.steps.empty_train(trainer.state, chunk, None)
    for _ in range(number):
        carry = Training(trainer.state, metrics)
        (trainer.state, metrics), _ = trainer._made.steps.train((), carry, chunk)
    jax.block_until_ready(trainer.state)


@contextlib.contextmanager
def _sides(trainer: Trainer, work: Path) -> Generator[dict[str, Side]]:
    run, copy = trainer.run, trainer._made.copies.take
    assert run is not None

    def by_boltax() -> None:
        run.count(step=run.step + 1)
        # The loop does not wait for the copy, but its next step does: it belongs to the stall.
        take = mock.Mock(side_effect=lambda tree: jax.block_until_ready(copy(tree)))
        with mock.patch.object(trainer._made.copies, "take", take):
            save_resume(trainer._single(run))  # noqa: SLF001

    def by_numpy() -> None:
        leaves = jax.tree.leaves(jax.device_get(state_tree(trainer.state)))
        keys = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        arrays = [np.asarray(leaf) for leaf in leaves if not isinstance(leaf, jax.Array)]
        arrays += [np.asarray(jax.random.key_data(key)) for key in keys]
        with (work / "state.npz").open("wb") as file:
            np.savez(file, *arrays)
            file.flush()
            os.fsync(file.fileno())

    with contextlib.ExitStack() as stack:
        sides = {"boltax": Side(by_boltax, trainer._made.saver.wait)}
        for name, is_async in (("orbax, async", True), ("orbax, sync", False)):
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=is_async
            )
            orbax = stack.enter_context(ocp.CheckpointManager(work / name, options=options))

            def by_orbax(orbax: ocp.CheckpointManager = orbax) -> None:
                step = (orbax.latest_step() or 0) + 1
                orbax.save(step, args=ocp.args.StandardSave(state_tree(trainer.state)))

            sides[name] = Side(by_orbax, orbax.wait_until_finished)
        sides["np.savez and fsync"] = Side(by_numpy, lambda: None)
        yield sides
