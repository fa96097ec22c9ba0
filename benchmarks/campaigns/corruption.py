"""Every file of the newest checkpoint is deleted, cut off and has bits flipped, one at a time.

A damage is silent when what is loaded is neither reported as damaged nor what was saved. With 20
flips in each file the campaign finds what no checksum covers; it does not prove that there is none.
"""

import collections
import json
import logging
import random
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boltax as bx
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import BoltaxError
from campaigns import workload
from campaigns.score import Score

Loaded = tuple[int, str]
"""The step, and a digest of all that was restored."""


def corrupt(flips: int, seed: int) -> Score:
    """Damages the newest resume checkpoint and the best model of a finished run.

    Args:
        flips: bits to flip in each file, each in a checkpoint that is otherwise whole.
        seed: decides which.
    """
    rng, found = random.Random(seed), collections.Counter[str]()
    score = Score("each file deleted, cut off, bits flipped", 0, "none silent, older one restored")
    with tempfile.TemporaryDirectory(prefix="boltax-corruption-") as work:
        folder = Path(work, "run")
        options = bx.CheckpointOptions(every_steps=3, keep_last=2, keep_best=2)
        workload.train(workload.make_trainer(folder, checkpoint=options))
        run = RunDirectory(folder)
        for kind, load in (("resume", load_resume), ("best", load_best)):
            counted = _corrupt_newest(getattr(run, kind), load, flips, rng, score)
            found += counted
            score.details.append(
                f"{kind}: " + ", ".join(f"{name} {n}" for name, n in sorted(counted.items()))
            )
    score.runs = found.total()
    score.result = f"{found['detected']} of {score.runs} detected, {found['silent']} silent"
    return score


def load_resume(directory: Path) -> Loaded:
    """Restores the newest resume checkpoint as `train_model` does."""
    template = {"state": ..., "interval": ..., "epoch": ...}
    found = ResumeCheckpoints(directory).restore(template)
    if found is None:
        raise LookupError("nothing to restore")
    progress = json.dumps(found.progress, sort_keys=True)
    return found.step, f"{workload.digest(found.arrays)} {progress}"


def load_best(directory: Path) -> Loaded:
    """Restores the best model."""
    found = BestCheckpoints(directory).restore()
    return found.step, f"{workload.digest(found.variables)} {json.dumps(found.metrics)}"


def _corrupt_newest(
    directory: Path,
    load: Callable[[Path], Loaded],
    flips: int,
    rng: random.Random,
    score: Score,
) -> collections.Counter[str]:
    whole = load(directory)
    newest = directory / str(whole[0])
    moved = newest.rename(directory.parent / "aside")
    older = load(directory)
    newest = moved.rename(newest)
    counted: collections.Counter[str] = collections.Counter()
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        for what, content in _damages(path.read_bytes(), flips, rng):
            with _damaged(path, content), boltax_warnings() as texts:
                try:
                    loaded = load(directory)
                except BoltaxError as error:
                    loaded = None
                    texts.append(str(error))
            outcome = _outcome(
                loaded, whole, older, is_told=any(str(newest) in text for text in texts)
            )
            counted[outcome] += 1
            if outcome != "detected":
                name = path.relative_to(directory.parent)
                score.failures.append(f"{name}, {what}: {outcome}; {' '.join(texts)[:300]}")
    if load(directory) != whole:
        score.failures.append(f"{directory.name}: looking at damaged files changed them")
    return counted


def _outcome(loaded: Loaded | None, whole: Loaded, older: Loaded, *, is_told: bool) -> str:
    if loaded is None:
        return "nothing restored"
    if loaded == older and is_told:
        return "detected"
    return "unnoticed but harmless" if loaded == whole else "silent"


def _damages(content: bytes, flips: int, rng: random.Random) -> Iterator[tuple[str, bytes | None]]:
    yield "deleted", None
    if content:
        yield "cut off at 0", b""
        yield "cut off at half", content[: len(content) // 2]
        for bit in (rng.randrange(8 * len(content)) for _ in range(flips)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            yield f"bit {bit} flipped", bytes(flipped)


@contextmanager
def _damaged(path: Path, content: bytes | None) -> Generator[None]:
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@contextmanager
def boltax_warnings() -> Generator[list[str]]:
    """What the logger of boltax says."""
    texts: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: Any) -> None:
            texts.append(record.getMessage())

    log, collect = logging.getLogger("boltax"), Collect()
    log.addHandler(collect)
    try:
        yield texts
    finally:
        log.removeHandler(collect)
