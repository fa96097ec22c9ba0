"""A run is killed, or asked to leave, at random instants, and goes on.

Each time the interrupted run is resumed in a new process, and has to leave, bit for bit, what the
uninterrupted one left.
"""

import collections
import random
import shutil
import signal
import statistics
import tempfile
from pathlib import Path

from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._step_folders import folders_in
from campaigns import workload
from campaigns.children import in_child
from campaigns.score import Score


class Reference:
    """The uninterrupted run, done twice, in a folder that also holds the interrupted ones."""

    def __init__(self) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="boltax-interruptions-"))
        self.seconds = 0.0
        for number in range(2):  # the first one fills the compilation cache
            folder = self.work / f"reference{number}"
            status, self.seconds = train(folder)
            if status:
                raise RuntimeError(f"the uninterrupted run failed:\n{end(folder)}")
        self.folder = self.work / "reference1"
        self.digest = (workload.notes(self.folder) / "digest.txt").read_text()
        if wrong := workload.differing(self.work / "reference0", self.folder):
            raise RuntimeError(f"two uninterrupted runs differ in {wrong}")


def kill(times: int, seed: int) -> Score:
    """Kills runs with SIGKILL, once or twice each, and resumes them.

    Args:
        times: how many runs.
        seed: decides the instants.
    """
    score = Score("kill -9 at random instants, resumed", times, "all bitwise equal")
    rng, reference = random.Random(seed), Reference()
    moments: collections.Counter[str] = collections.Counter()
    exact = 0
    for trial in range(times):
        folder = reference.work / f"run{trial}"
        instants: list[float] = []
        for _ in range(rng.choice((1, 2))):
            noted = len(workload.moments(folder))
            status, _ = interrupt(folder, signal.SIGKILL, rng, reference, instants)
            moments[_moment(folder, noted) if status else "after its end"] += 1
            if status not in (0, -signal.SIGKILL):
                score.failures.append(f"run {trial}: status {status} at {instants}: {end(folder)}")
        exact += _goes_on(folder, reference, f"run {trial}, killed at {instants}", score)
    score.result = f"{exact} of {times} bitwise equal"
    score.details = [f"killed {moment}: {count}" for moment, count in sorted(moments.items())]
    return _finished(score, reference)


def term(times: int, seed: int) -> Score:
    """Sends SIGTERM to runs, looks at what they saved on the way out, and resumes them.

    Args:
        times: how many runs.
        seed: decides the instants.
    """
    target = "clean exit, no finished step lost, all bitwise equal"
    score = Score("SIGTERM at random instants, resumed", times, target)
    rng, reference = random.Random(seed), Reference()
    exits: collections.Counter[str] = collections.Counter()
    delays: list[float] = []
    clean = exact = 0
    for trial in range(times):
        folder = reference.work / f"run{trial}"
        instants: list[float] = []
        status, seconds = interrupt(folder, signal.SIGTERM, rng, reference, instants)
        instant = instants[-1]
        delays.append(seconds - instant)
        exits[f"exit status {status}"] += 1
        fault = _fault_of_exit(status, folder)
        clean += not fault
        if fault:
            score.failures.append(f"run {trial}: {fault}, SIGTERM at {instant}: {end(folder)}")
        exact += _goes_on(folder, reference, f"run {trial}, SIGTERM at {instant}", score)
    score.result = f"{clean} of {times} clean, {exact} bitwise equal"
    score.details = [f"{name}: {count}" for name, count in sorted(exits.items())]
    middle, longest = statistics.median(delays), max(delays)
    score.details.append(f"signal to exit: median {middle:.2f} s, longest {longest:.2f} s")
    return _finished(score, reference)


def train(folder: Path, signal_after: tuple[float, int] | None = None) -> tuple[int, float]:
    """The workload's run in a child."""

    def work() -> None:
        trainer = workload.make_trainer(folder)
        workload.train(trainer)
        workload.note_left(trainer)

    workload.notes(folder).mkdir(exist_ok=True)
    log_of(folder).touch()  # a child may be killed before it can
    return in_child(work, signal_after=signal_after, log=log_of(folder))


def interrupt(
    folder: Path,
    number: int,
    rng: random.Random,
    reference: Reference,
    instants: list[float],
) -> tuple[int, float]:
    """Trains, and sends a signal at an instant that it adds to those before.

    A first run that ends before its signal comes is done again with another instant.
    """
    is_first = not instants
    instants.append(rng.uniform(0.0, reference.seconds))
    status, seconds = train(folder, signal_after=(instants[-1], number))
    if status == 0 and is_first:
        remove(folder)
        instants.clear()
        return interrupt(folder, number, rng, reference, instants)
    return status, seconds


def remove(folder: Path) -> None:
    """Deletes a run and the notes about it."""
    for path in (folder, workload.notes(folder)):
        shutil.rmtree(path, ignore_errors=True)


def log_of(folder: Path) -> Path:
    """The output of a run and of those that went on with it."""
    return workload.notes(folder) / "log.txt"


def end(folder: Path) -> str:
    """The end of a run's output."""
    return log_of(folder).read_text()[-1500:]


def _moment(folder: Path, noted: int) -> str:
    """What a killed process was doing, which began when so many moments were noted."""
    last = workload.moments(folder)[noted:][-1:]
    if not last:
        return "before the first step"
    if last[0] in ("evaluation", "end"):
        return "in an evaluation" if last[0] == "evaluation" else "after the training"
    is_saving = any((folder / "checkpoints").glob("*/.*"))
    return "while a checkpoint was being written" if is_saving else "between checkpoints"


def _fault_of_exit(status: int, folder: Path) -> str:
    moments = workload.moments(folder)
    steps = [int(moment) for moment in moments if moment.isdigit()]
    if status == -signal.SIGTERM and steps and "end" not in moments:
        return "died of the signal in the middle of the training"
    if status not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        return f"status {status}"
    if any(text in log_of(folder).read_text() for text in ("Traceback", "NOT SAVED", "damaged")):
        return "not a clean exit"
    found = folders_in(RunDirectory(folder).resume).find() if steps else None
    if steps and (found is None or found.step < steps[-1]):
        return f"saved {found and found.step} of {steps[-1]} finished steps"
    return ""


def _goes_on(folder: Path, reference: Reference, what: str, score: Score) -> bool:
    """Whether a resumed run leaves what the uninterrupted one left; deletes it then."""
    started_at = ResumeCheckpoints(RunDirectory(folder).resume).newest_step()
    status, _ = train(folder)
    wrong = [f"status {status}"] if status else workload.differing(folder, reference.folder)
    if wrong:
        score.failures.append(f"{what}, resumed from step {started_at}: {wrong}: {end(folder)}")
    else:
        remove(folder)
    return not wrong


def _finished(score: Score, reference: Reference) -> Score:
    score.details.append(f"one uninterrupted run: {reference.seconds:.1f} s")
    if score.failures:
        score.details.append(f"what failed is in {reference.work}")
    else:
        shutil.rmtree(reference.work)
    return score
