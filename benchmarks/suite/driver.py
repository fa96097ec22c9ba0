"""Starts a process for each side, and times them in alternation: A B C ... C B A ...

Only one process works at a time: the others wait for a line on their standard input. A side that
is not installed, or that fails, is left out and the rest goes on.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
QUIET_CORES = 0.25
"""Work of others, in cores, up to which the machine counts as quiet."""


@dataclass
class Timed:
    """What was measured of one side.

    Attributes:
        side: its name.
        rounds: the answers for the timed rounds.
        import_seconds: of the start of its process until all is imported.
        first: the answer for the round that warmed it up.
        missing: why there are no rounds; empty when there are.
    """

    side: str
    rounds: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    import_seconds: float = float("nan")
    first: dict[str, Any] = field(default_factory=dict[str, Any])
    missing: str = ""


class WorkerError(Exception):
    """A worker ended, or said that it cannot take part."""


class Worker:
    """The process of one side."""

    def __init__(
        self,
        side: str,
        task: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.timed = Timed(side)
        self._log = folder / f"{side.replace(':', '-')}.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [python, "-m", "suite.worker", side, task, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**_environment(folder), **(environment or {})},
            )

    def start(self) -> None:
        """Waits until all is imported and set up."""
        self.timed.import_seconds = self._read()["import_seconds"]
        self._read()

    def round(self) -> dict[str, Any]:
        """Has it train and evaluate once."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write('{"go": 1}\n')
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended: reading says why
        return self._read()

    def cpu_seconds(self) -> float:
        """What it has used so far; 0 where the system does not tell."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(errors="replace").split("\n")
            raise WorkerError(
                "failed: " + next((ln for ln in reversed(lines) if ln.strip()), "silent")
            )
        answer = json.loads(line)
        if "missing" in answer:
            raise WorkerError(answer["missing"])
        return answer


def time_sides(
    sides: Sequence[str],
    task: str,
    *,
    rounds: int,
    data: str = "memory",
    steps: int | None = None,
    patience: float = 0.0,
    pythons: Mapping[str, str] | None = None,
    say: Any = print,
) -> list[Timed]:
    """Times the sides of one task beside each other.

    Args:
        sides: names of `worker.SIDES`, or ``module:function``.
        task: name of a task.
        rounds: timed rounds of each side, after one that warms it up.
        data: ``"memory"``, ``"torch"`` or ``"grain"``.
        steps: in a round, instead of the task's own number.
        patience: seconds to wait before each round for a machine without other work.
        pythons: for sides that are installed elsewhere, that interpreter.
        say: told what goes on.
    """
    # One to warm up, and one that never begins: what a library does at the end is not in the last.
    arguments = ["--data", data, "--rounds", str(rounds + 2)]
    arguments += [] if steps is None else ["--steps", str(steps)]
    results: list[Timed] = []
    with _workplace() as folder:
        workers: list[Worker] = []
        try:
            for side in sides:
                say(f"{task}: starting {side}")
                python = (pythons or {}).get(side, sys.executable)
                workers.append(Worker(side, task, arguments, folder, python=python))
                results.append(workers[-1].timed)
                _attempt(workers[-1], _warm_up)
            for number in range(rounds):
                for worker in workers if number % 2 == 0 else workers[::-1]:
                    _settle([other for other in workers if not other.timed.missing], patience)
                    _attempt(worker, _timed_round)
                say(f"{task}: round {number + 1} of {rounds} done")
        finally:
            for worker in workers:
                worker.stop()
    return results


def _warm_up(worker: Worker) -> None:
    worker.start()
    worker.timed.first = worker.round()


def _timed_round(worker: Worker) -> None:
    worker.timed.rounds.append(worker.round())


def _attempt(worker: Worker, work: Any) -> None:
    if worker.timed.missing:
        return
    try:
        work(worker)
    except WorkerError as error:
        worker.timed.missing = str(error)


def _settle(workers: Sequence[Worker], patience: float, most: float = 3.0) -> None:
    """Waits until no worker has anything left to do in the background, then for the machine."""
    began = time.monotonic()
    used = [worker.cpu_seconds() for worker in workers]
    while time.monotonic() - began < most:
        time.sleep(0.1)
        before, used = used, [worker.cpu_seconds() for worker in workers]
        if sum(used) - sum(before) < 0.03:
            break
    began = time.monotonic()
    while time.monotonic() - began < patience and busy_cores(0.3) > QUIET_CORES:
        pass


def busy_cores(seconds: float) -> float:
    """Cores that are in use, over so many seconds; 0 where the system does not tell."""
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


def _busy_seconds() -> float:
    try:
        user, nice, system, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="boltax-speed-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """That of this process, with no cache of compiled programs but boltax's own, empty at first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMP", "JAX_PERSIST"))}
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), kept.get("PYTHONPATH", "")]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "BOLTAX_COMPILATION_CACHE": str(folder / "cache"),
        "KERAS_BACKEND": "jax",
        "KERAS_HOME": str(folder / "keras"),
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TOKENIZERS_PARALLELISM": "false",
    }
