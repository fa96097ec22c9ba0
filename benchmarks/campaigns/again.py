"""A second run begins in the folder of a first one, and is killed at random instants.

Whatever the instant, each file of the first run is in one of two places, unchanged. What follows is
a third start: one that begins once more, after which the first run has to be in ``earlier/0`` as a
whole, or one that resumes, which has to go on with the newer of the two that has a checkpoint. Each
rename takes a while, so that many instants fall between two of them. Folders have names that are
patterns to a search for files.
"""

import collections
import hashlib
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from boltax.checkpoint._rundir import RunDirectory
from campaigns import workload
from campaigns.children import in_child
from campaigns.interruptions import Reference, end, log_of
from campaigns.score import Score

NAMES = ("lr=[0.1]", "a*b?", "{1,2} größe", "plain")
SECONDS_OF_A_RENAME = 0.03


def begin_again(times: int, seed: int) -> Score:
    """Kills second runs, and looks where the first one is.

    Args:
        times: how many.
        seed: decides names, instants, and what follows.
    """
    target = "each first run whole"
    score = Score("a second run in one folder, killed", times, target)
    rng, reference, whole = random.Random(seed), Reference(), 0
    moments: collections.Counter[str] = collections.Counter()
    for trial in range(times):
        folder = reference.work / rng.choice(NAMES) / f"run{trial}"
        shutil.copytree(reference.folder, folder)
        first, instant = files(folder), rng.uniform(0.0, reference.seconds)
        status = start(folder, resume=False, signal_after=(instant, signal.SIGKILL))
        moments[_moment(folder)] += 1
        faults = [f"lost {name}" for name in missing(folder, first)]
        if status not in (0, -signal.SIGKILL):
            faults.append(f"status {status}")
        faults += _faults_of_third(folder, first, resume=rng.random() < 0.5)
        whole += not faults
        if faults:
            score.failures.append(f"run {trial}, killed at {instant}: {faults}: {end(folder)}")
    score.result = f"{whole} of {times} whole"
    score.details = [f"killed {moment}: {count}" for moment, count in sorted(moments.items())]
    shutil.rmtree(reference.work)
    return score


def start(folder: Path, *, resume: bool, **options: Any) -> int:
    """Starts a run in a child, whose renames take a while; returns its exit status."""

    def work() -> None:
        rename = Path.replace

        def slowly(path: Path, target: Any) -> Path:
            if "earlier" in Path(target).parts:
                time.sleep(SECONDS_OF_A_RENAME)
            return rename(path, target)

        Path.replace = slowly  # pyright: ignore[reportAttributeAccessIssue]
        trainer = workload.make_trainer(folder)
        workload.train(trainer, resume=resume)
        workload.Trainer.load_from_checkpoint(folder)

    workload.notes(folder).mkdir(exist_ok=True)
    log_of(folder).touch()
    return in_child(work, log=log_of(folder), **options)[0]


def files(folder: Path) -> dict[str, str]:
    """The checksum of each file of a run, but for its lock and for earlier runs in its folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    found = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()) for p in paths}
    return {n: c.hexdigest() for n, c in found.items() if not n.startswith("earlier/")}


def missing(folder: Path, first: dict[str, str]) -> list[str]:
    """The files of the first run that are not, as they were, in one of its places."""
    earlier = folder / "earlier"
    places = [*earlier.iterdir()] if earlier.is_dir() else []
    found = [*map(files, places), files(folder)]
    return [n for n, checksum in first.items() if all(f.get(n) != checksum for f in found)]


def _faults_of_third(folder: Path, first: dict[str, str], *, resume: bool) -> list[str]:
    has_moved = (folder / "earlier" / "0").is_dir()
    if status := start(folder, resume=resume):
        return [f"status {status} of the third start"]
    if resume and not has_moved:
        # the first run goes on, which has ended: what a test writes is written again
        left = files(folder)
        kept = [n for n in first if n.startswith(("checkpoints/", "history", "hparams"))]
        return [f"{name} is not put back" for name in kept if left.get(name) != first[name]]
    earlier = folder / "earlier" / "0"
    faults = [] if files(earlier) == first else ["earlier/0 is not the first run"]
    if not RunDirectory(folder).history.exists():
        faults.append("the third start has left no history")
    return faults


def _moment(folder: Path) -> str:
    earlier = folder / "earlier"
    if any(earlier.glob(".moving-*")):
        return "while the first run moved"
    return "after it had moved" if earlier.is_dir() else "before"
