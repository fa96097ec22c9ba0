"""The tasks of the speed suite: sizes, and data from a seed, the same for every side.

Every data set has a loss that is neither zero nor that of guessing after a few rounds, so two
sides that train differently show different losses. Nothing here may import a framework.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

LEARNING_RATE = 1e-3
Arrays = tuple[np.ndarray, np.ndarray]
"""Inputs ``[examples, ...]`` and labels ``[examples]`` or ``[examples, time]``."""


@dataclass(frozen=True)
class Task:
    """A model with its data.

    Attributes:
        name: as on the command line.
        kind: the model: ``"mlp"``, ``"cnn"`` or ``"lm"``.
        about: in words, for the report.
        shape: of one input.
        sizes: of the model.
        batch: examples in a batch.
        steps: batches in an epoch, which is a round; none is partial.
        eval_batches: batches of an evaluation, of the same size.
        fuse: steps that the hand-written fused loop takes in one call.
        is_unrolled: whether it unrolls them: XLA's loops are slow on the CPU around convolutions.
    """

    name: str
    kind: str
    about: str
    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    batch: int
    steps: int
    eval_batches: int
    fuse: int = 32
    is_unrolled: bool = False

    def shortened(self, steps: int | None) -> "Task":
        """The task with so many steps in a round, and no more batches than that to evaluate."""
        if steps is None:
            return self
        batches = min(steps, self.eval_batches)
        return dataclasses.replace(self, steps=steps, eval_batches=batches)


TASKS = {
    task.name: task
    for task in (
        Task("T1", "mlp", "MLP 64-256-256-10, batch 128", (64,), (256, 256, 10), 128, 468, 156),
        Task("T1s", "mlp", "MLP 16-64-10, batch 32", (16,), (64, 10), 32, 1875, 1250),
        Task(
            "T2",
            "cnn",
            "CNN 32/64/64 with BatchNorm, 28x28x1, batch 128",
            (28, 28, 1),
            (32, 64, 64, 10),
            128,
            32,
            32,
            fuse=4,
            is_unrolled=True,
        ),
        Task(
            "T3",
            "lm",
            "causal transformer, d 128, 2 layers, 4 heads, 64 tokens of 256, batch 32",
            (64,),
            (256, 128, 2, 4),
            32,
            64,
            32,
        ),
    )
}


def make_data(task: Task, seed: int = 0) -> tuple[Arrays, Arrays]:
    """The arrays for training and for evaluation."""
    rng = np.random.default_rng(seed)
    make = {"mlp": _clusters, "cnn": _gratings, "lm": _chains}[task.kind]
    train = task.steps * task.batch
    inputs, labels = make(task, train + task.eval_batches * task.batch, rng)
    return (inputs[:train], labels[:train]), (inputs[train:], labels[train:])


def _clusters(task: Task, number: int, rng: Any) -> Arrays:
    """Points around ten centres that overlap: about one in five is on the wrong side."""
    (width,) = task.shape
    centres = rng.normal(size=(10, width)) * 2.4 / np.sqrt(width)
    labels = rng.integers(0, 10, number).astype(np.int32)
    noise = rng.standard_normal((number, width), dtype=np.float32)
    return noise + centres[labels].astype(np.float32), labels


def _gratings(task: Task, number: int, rng: Any) -> Arrays:
    """Waves in ten directions, of any phase, under noise."""
    height, width, _ = task.shape
    labels = rng.integers(0, 10, number).astype(np.int32)
    angles = (np.pi / 10) * labels[:, None, None]
    rows, columns = np.mgrid[:height, :width]
    along = np.cos(angles) * columns + np.sin(angles) * rows
    phases = rng.uniform(0, 2 * np.pi, (number, 1, 1))
    images = 0.5 * np.cos(0.9 * along + phases) + rng.standard_normal((number, height, width))
    return images.astype(np.float32)[..., None], labels


def _chains(task: Task, number: int, rng: Any) -> Arrays:
    """Sequences in which each token is followed by one of four."""
    vocabulary = task.sizes[0]
    followers = rng.integers(0, vocabulary, (vocabulary, 4))
    choices = rng.choice(4, size=(number, task.shape[0]), p=(0.6, 0.2, 0.15, 0.05))
    tokens = np.empty((number, task.shape[0] + 1), np.int32)
    tokens[:, 0] = rng.integers(0, vocabulary, number)
    for time in range(task.shape[0]):
        tokens[:, time + 1] = followers[tokens[:, time], choices[:, time]]
    return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
