"""Random sequences of metrics and saves against a simple model of what must be on the disk.

Validations with NaN and ties, resume checkpoints, returns to older steps, restarts in the same
folder, and damage to the newest checkpoint: after each of them the newest resume checkpoint, the
best model of the current history, and the best models that its resume checkpoints speak of have to
be there, whole, and with the content that was saved. The arrays are a stand-in of one small file.
"""

import math
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from boltax._base._monitor import is_better
from boltax.checkpoint import _step_folders
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from campaigns.score import Score

MONITORS = (("val/loss", "min"),)
VALUES = (math.nan, math.nan, *(0.1 * i for i in range(8)))
SAVES_IN_ONE = 25


Best = tuple[int, float, str]
"""The step, the metric and the name of a model."""


@dataclass
class Model:
    """What must be there, kept in the plainest way.

    Attributes:
        keep_last: of the resume checkpoints.
        keep_best: of the best models.
        step: completed steps.
        bests: each model of the history that led to now that was better than all before.
        saves: the resume checkpoints of this history: their step, and `bests` at that time.
    """

    keep_last: int
    keep_best: int
    step: int = 0
    bests: tuple[Best, ...] = ()
    saves: list[tuple[int, tuple[Best, ...]]] = field(default_factory=list[Any])


def retain(sequences: int, seed: int) -> Score:
    """Goes through random sequences.

    Args:
        sequences: how many.
        seed: decides them.
    """
    target = "newest and best always there"
    score = Score("metrics with NaN, ties, rollbacks", sequences, target)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk has to be waited for
    work = Path(tempfile.mkdtemp(prefix="boltax-retention-", dir=memory))
    looks = 0
    with (
        mock.patch.object(_step_folders, "write_arrays", _write_stand_in),
        # what stands in for arrays is none; its manifest says whether it is whole
        mock.patch.object(_step_folders, "fault_of_arrays", return_value=None),
    ):
        for number in range(sequences):
            rng = random.Random(f"{seed} {number}")
            sequence = Sequence(work / str(number), rng)
            try:
                for _ in range(SAVES_IN_ONE):
                    sequence.go_on()
                    looks += 1
            except AssertionError as error:
                events = "; ".join(sequence.events)
                score.failures.append(f"sequence {number}: {error}, after: {events}")
            shutil.rmtree(work / str(number))
    shutil.rmtree(work)
    score.result = f"{len(score.failures)} violations in {looks} looks"
    return score


def _write_stand_in(folder: Path, name: str, tree: Any) -> None:
    (folder / name).mkdir()
    (folder / name / "content").write_text(tree["name"])


class Sequence:
    """One sequence: what a run does to its checkpoints, and what the model says of it."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.model = Model(keep_last=rng.randint(1, 3), keep_best=rng.randint(1, 3))
        self.resume = ResumeCheckpoints(folder / "resume", keep=self.model.keep_last)
        self.best = BestCheckpoints(folder / "best", keep=self.model.keep_best)
        self.events = [f"keep_last={self.model.keep_last}, keep_best={self.model.keep_best}"]

    def go_on(self) -> None:
        """Does something, and looks."""
        events = [self.validate] * 5 + [self.save] * 5 + [self.go_back] * 2
        self.rng.choice([*events, self.damage, self.start_anew])()
        self.look()

    def validate(self) -> None:
        """A few steps, and a validation whose model is saved if it is the best."""
        model = self.model
        model.step += self.rng.randint(1, 3)
        new = {"val/loss": self.rng.choice(VALUES)}
        self.events.append(f"validate {new['val/loss']:.1f} at {model.step}")
        old = {"val/loss": model.bests[-1][1]} if model.bests else None
        if is_better(MONITORS, new, old):
            name = str(len(self.events))
            self.best.save(model.step, {"name": name}, new, protected=self.resume.best_steps())
            model.bests = (*model.bests, (model.step, new["val/loss"], name))[-model.keep_best :]

    def save(self) -> None:
        """A few steps, and a resume checkpoint."""
        model = self.model
        model.step += self.rng.randint(0, 2)
        self.events.append(f"save {model.step}")
        steps = list(dict.fromkeys(each[0] for each in model.bests))  # as `Run.best_steps`
        content = {"best_steps": steps, "event": len(self.events)}
        self.resume.save(model.step, {"name": str(len(self.events))}, content)
        model.saves = [each for each in model.saves if each[0] != model.step]
        model.saves = [*model.saves, (model.step, model.bests)][-model.keep_last :]

    def go_back(self) -> None:
        """A new process that goes on from one of the resume checkpoints of this history."""
        there = [n for n, (step, _) in enumerate(self.model.saves) if step in self.resume.steps()]
        if there:
            self._go_on_from(self.rng.choice(there))

    def damage(self) -> None:
        """The newest resume checkpoint is damaged, and the run goes on from the one before it."""
        model = self.model
        if len(model.saves) > 1 and self.resume.steps()[-2:] == [s for s, _ in model.saves[-2:]]:
            (self.resume.directory / str(model.saves[-1][0]) / "arrays" / "content").unlink()
            found = self.resume._folders.find()  # noqa: SLF001
            assert found is not None, "all are damaged"
            assert found.step == model.saves[-2][0], f"step {found.step} instead of the older one"
            self._go_on_from(len(model.saves) - 2)
            self.save()  # the run's next one; until then the damaged one is the newest

    def start_anew(self) -> None:
        """Another training in the same folder, whose first resume checkpoint comes at once."""
        self.events.append("start anew")
        self.model.step, self.model.bests, self.model.saves = 0, (), []
        self.save()

    def _go_on_from(self, number: int) -> None:
        model = self.model
        model.step, model.bests = model.saves[number]
        model.saves = model.saves[: number + 1]
        self.events.append(f"go back to {model.step}")
        found = self.resume._folders.find(model.step)  # noqa: SLF001
        assert found is not None, f"no resume checkpoint of step {model.step}"
        steps = (found.content or {})["best_steps"]
        self.best.go_back(steps, self.resume.best_steps())

    def look(self) -> None:
        """Compares what is there with the model.

        Raises:
            AssertionError: when something is missing, damaged or another one.
        """
        model = self.model
        kept = self.resume.steps()
        assert len(kept) <= model.keep_last, f"{len(kept)} resume checkpoints"
        if model.bests:
            assert self.best.steps()[-1] == model.bests[-1][0], f"the best is {self.best.steps()}"
        for step, bests in model.saves:
            if step in kept:
                self._check(self.resume, step)
                self._check_bests(bests)
        if self.events[-1].startswith("save"):
            assert kept[-1] == model.step, f"the newest is {kept[-1]}"
        self._check_bests(model.bests)

    def _check_bests(self, bests: tuple[Best, ...]) -> None:
        for step, _, name in bests:
            self._check(self.best, step)
            content = self.best.directory / str(step) / "variables" / "content"
            assert content.read_text() == name, f"the best model of step {step} is another one"

    def _check(self, checkpoints: ResumeCheckpoints | BestCheckpoints, step: int) -> None:
        folders = checkpoints._folders  # noqa: SLF001
        found = [each for each in folders.saved() if each.step == step]
        name = checkpoints.directory.name
        assert found, f"no {name} checkpoint of step {step}"
        assert not folders.faults(found[0]), f"{name} checkpoint of step {step} is damaged"
