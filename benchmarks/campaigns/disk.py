"""The disk of a run is full while it saves, once at each of its saves, and free again later.

The run is on a small disk in memory, which root may mount. Before a save a file takes all space
that is left; when the save has failed, what is on the disk is looked at, and the file is deleted.
In other runs the disk stays full until the end, or the folder of the checkpoints is deleted.

Rows for a logger's file that come while the disk is full are lost, which the log says; so
``metrics.csv`` is not compared.
"""

import contextlib
import random
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

from boltax.callbacks import Callback
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._step_folders import folders_in
from campaigns import workload
from campaigns.children import in_child
from campaigns.interruptions import Reference, end, log_of
from campaigns.score import Score

EVERY, LAST = 3, workload.STEPS
MEGABYTES = 12
FREED, FULL, DELETED = "full at one save", "full until the end", "checkpoints deleted"
BETTER = "full until the end, each validation better"


def fill(saves: int, seed: int) -> Score:
    """Trains on disks that are full at one save each, or until the end.

    Args:
        saves: at how many of the saves, each in a run of its own.
        seed: decides at which, when they are not all.
    """
    rng, score = random.Random(seed), Score("disk full at a save", 0, "the run goes on, none lost")
    steps = list(range(EVERY, LAST, EVERY))
    cases = [(step, FREED) for step in sorted(rng.sample(steps, min(saves, len(steps))))]
    cases += [
        (LAST, FULL),
        (rng.choice(steps), FULL),
        (rng.choice(steps[4:7]), BETTER),
        (rng.choice(steps[2:]), DELETED),
    ]
    reference, good = Reference(), 0
    for number, (step, trouble) in enumerate(cases):
        folder = reference.work / f"run{number}"
        try:
            with _small_disk(folder):
                faults = _faults(folder, step, trouble, reference)
        except PermissionError as error:
            score.result = f"SKIPPED: {error}"
            break
        score.runs += 1
        good += not faults
        if faults:
            score.failures.append(f"{trouble}, step {step}: {faults}: {end(folder)}")
    else:
        score.result = f"{good} of {len(cases)} went on, all older checkpoints whole"
    shutil.rmtree(reference.work)
    return score


def fill_up(path: Path) -> None:
    """Takes all space that is left on a disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class Better(workload.Trainer):
    """Has a validation that is better each time, so that each epoch has a best model to save."""

    def on_validation_epoch_end(self, epoch_idx: int, eval_metrics: Any, val_loader: Any) -> None:
        """Sets the metric that is followed."""
        eval_metrics["val/acc"] = float(epoch_idx)


class Trouble(Callback):
    """Makes trouble at the save of a step, and ends it one step later.

    It waits for the saves before and after, so that the trouble meets this one and no other.
    """

    def __init__(self, folder: Path, step: int, trouble: str) -> None:
        self.folder = folder
        self.step = step
        self.trouble = trouble
        self.trainer: Any = None

    def on_step_end(self, view: Any) -> None:
        """Begins and ends the trouble; a callback's turn is before the save of a step."""
        if view.step == self.step:
            self.trainer._made.saver.wait()
            (workload.notes(self.folder) / "before").write_text(str(checkpoints(self.folder)))
            if self.trouble == DELETED:
                shutil.rmtree(self.folder / "checkpoints")
            else:
                fill_up(self.folder / "filler")
        if view.step == self.step + 1 and self.trouble == FREED:
            self.trainer._made.saver.wait()
            (workload.notes(self.folder) / "after").write_text(str(checkpoints(self.folder)))
            (self.folder / "filler").unlink()


def checkpoints(folder: Path) -> list[str]:
    """The checkpoints of a run, the newest last, and what is wrong with those that are damaged."""
    run = RunDirectory(folder)
    return [
        f"{directory.name} {saved.step}{folders.faults(saved) or ''}"
        for directory in (run.best, run.resume)
        for folders in [folders_in(directory)]
        for saved in folders.saved()
    ]


@contextlib.contextmanager
def _small_disk(folder: Path) -> Generator[None]:
    """A disk at a folder, and a folder for the notes beside it."""
    folder.mkdir()
    workload.notes(folder).mkdir()
    size = f"size={MEGABYTES}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PermissionError("only root on Linux may mount a small disk") from error
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _train(folder: Path, step: int, trouble: str) -> None:
    callback = Trouble(folder, step, trouble)
    kind = Better if trouble == BETTER else workload.Trainer
    callback.trainer = workload.make_trainer(folder, [callback], trainer_class=kind)
    workload.train(callback.trainer)
    if trouble not in (FULL, BETTER):
        workload.note_left(callback.trainer)


def _faults(folder: Path, step: int, trouble: str, reference: Reference) -> list[str]:
    """What is wrong with a run that met trouble at a step."""
    notes = workload.notes(folder)
    status, _ = in_child(lambda: _train(folder, step, trouble), log=log_of(folder))
    if status != (trouble in (FULL, BETTER)):  # a script ends with 1 when its run is not saved
        return [f"exit status {status}"]
    text, left = log_of(folder).read_text(), checkpoints(folder)
    faults = [name for name in left if "[" in name]
    if (notes / "digest.txt").read_text() != reference.digest:
        faults.append("another last state")
    if trouble != DELETED and f"the resume checkpoint of step {step} failed" not in text:
        faults.append(f"no warning of step {step}")
    if trouble in (FULL, BETTER):
        if str(left) != (notes / "before").read_text():
            faults.append(f"left {left}")
        told = [line for line in text.splitlines() if "NOT SAVED" in line]
        if not any(f"the resume checkpoint of step {LAST}" in line for line in told):
            faults.append("it does not say that the end is not saved")
        if trouble == BETTER and not any(f"the best model of step {LAST}" in line for line in told):
            faults.append("it does not say that the best model is not saved")
        return faults
    if trouble == FREED and (notes / "after").read_text() != (notes / "before").read_text():
        faults.append("older checkpoints are not as they were")
    if left[-1] != f"resume {LAST}":
        faults.append(f"left {left}")
    wrong = workload.differing(folder, reference.folder)
    return faults + [name for name in wrong if name != "metrics.csv"]
