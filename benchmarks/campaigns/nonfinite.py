"""A value of a batch is not finite, at random steps, under each policy.

``stop`` has to name the step and keep the state from before it, on the disk too; ``skip`` has to
name it and train on as if that batch were not there; ``continue`` has to name it.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import boltax as bx
from boltax._loop._saving import state_tree
from boltax.callbacks import Callback
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import NonFiniteError
from campaigns import workload
from campaigns.corruption import boltax_warnings
from campaigns.score import Score

STEPS = workload.STEPS_PER_EPOCH
Batches = list[tuple[np.ndarray, np.ndarray]]


class Digests(Callback):
    """The digest of the state after each step."""

    def __init__(self) -> None:
        self.after: dict[int, str] = {}

    def on_step_end(self, view: Any) -> None:
        """Adds one."""
        self.after[view.step] = workload.digest(state_tree(view.state))


def inject(times: int, seed: int) -> Score:
    """Trains with a bad batch.

    Args:
        times: how often for each policy.
        seed: decides the steps and the values.
    """
    rng = random.Random(seed)
    score = Score("NaN or infinity in a batch", 3 * times, "step named exactly, state kept")
    named = kept = 0
    with tempfile.TemporaryDirectory(prefix="boltax-nonfinite-") as work:
        digests = Digests()
        _train(Path(work, "clean"), _batches(), "stop", [digests])
        for trial in range(times):
            step, value = rng.randint(2, STEPS), rng.choice((np.nan, np.inf, -np.inf))
            batches = _batches()
            images = batches[step - 1][0]
            images[rng.randrange(len(images)), rng.randrange(images.shape[1])] = value
            for policy in ("stop", "skip", "continue"):
                folder = Path(work, f"{policy}{trial}")
                text, digest, on_disk = _train(folder, batches, policy)
                is_named = f"not finite at step {step} (" in text
                expected = digest
                if policy == "stop":
                    expected = digests.after[step - 1]
                elif policy == "skip":
                    without = batches[: step - 1] + batches[step:]
                    expected = _train(Path(work, f"without{trial}"), without, policy)[1]
                is_kept = digest == on_disk == expected
                named, kept = named + is_named, kept + is_kept
                if not (is_named and is_kept):
                    found = f"{is_named=}, {is_kept=}, on disk {on_disk == digest}"
                    score.failures.append(f"{policy}, {value} at step {step}: {found}: {text}")
    score.result = f"{named} named exactly, {kept} states kept"
    return score


def _batches() -> Batches:
    images, labels = workload.data(STEPS * workload.BATCH, 1)
    return [
        (images[i : i + workload.BATCH].copy(), labels[i : i + workload.BATCH])
        for i in range(0, len(labels), workload.BATCH)
    ]


def _train(
    folder: Path, batches: Batches, policy: str, callbacks: list[Callback] | None = None
) -> tuple[str, str, str]:
    """One epoch: what was said, and digests of the last state and of that on the disk."""
    trainer = workload.make_trainer(
        folder,
        callbacks or (),
        loop=bx.LoopOptions(log_every=5, on_nonfinite=policy),
        # A decay would depend on the number of steps, of which one run has one less.
        optimizer_hparams={"lr": 1e-2, "warmup": 5, "schedule": "constant"},
    )
    with boltax_warnings() as texts:
        try:
            trainer.train_model(batches, workload.loaders()[1], num_epochs=1)
        except NonFiniteError as error:
            texts.append(str(error))
    state = state_tree(trainer.state)
    saved = ResumeCheckpoints(RunDirectory(folder).resume).restore(
        {"state": state, "interval": ..., "epoch": ...}
    )
    on_disk = "nothing" if saved is None else workload.digest(saved.arrays["state"])
    return " ".join(texts), workload.digest(state), on_disk
