"""Writes checkpoints in the background, one after the other, and tells what failed.

The loop hands over a job that owns everything it writes, and goes on. Jobs run in the order in
which they came, so what is on the disk is always a state of affairs that there has been. A job that
fails is told, never raised into the training; the last one of its kind is tried again.

Each job holds a copy of arrays, so few of them may wait. Kinds that must come to their turn however
many others there are, as the resume checkpoint while validation improves all the time, are counted
on their own: such a job is taken at once, and waits behind `1 + most_waiting` others at most.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """Something to be written.

    Attributes:
        what: names it to people: ``"the resume checkpoint of step 300"``.
        kind: a newer job of the same kind makes an older one that failed needless.
        write: writes it, durably; it may be called again when it has raised.
        has_arrays: whether it holds a copy of arrays in memory, so that few of its like may wait.
    """

    what: str
    kind: str
    write: Callable[[], None]
    has_arrays: bool = True


@dataclass(frozen=True)
class Failure:
    """A job that could not be done, and why."""

    job: Job
    error: Exception


class Saver:
    """The jobs of a run, in a thread of their own that starts with the first of them.

    When the process ends, Python waits for the jobs that were handed over.

    Args:
        most_waiting: jobs with arrays that may wait for their turn; `submit` waits when there are
            more.
        apart: kinds that are counted each on its own, beside all others together.

    Example:
        >>> saver = Saver()
        >>> saver.submit(Job("a file", "file", lambda: None))
        >>> saver.wait(), saver.failures()
        (None, [])
    """

    def __init__(self, most_waiting: int = 1, apart: Collection[str] = ("resume",)) -> None:
        self._most_waiting = most_waiting
        self._apart = frozenset(apart)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[tuple[Job, Future[None]]] = deque()
        self._untold: list[Failure] = []
        self._undone: dict[str, Job] = {}
        self._newest: dict[str, Job] = {}

    def is_busy_with(self, kind: str) -> bool:
        """Whether a job of this kind is being written, or waits for its turn.

        Example:
            >>> Saver().is_busy_with("resume")
            False
        """
        return any(job.kind == kind for job in self._with_arrays())

    def submit(self, job: Job) -> None:
        """Has a job written after those before it; waits first while too many with arrays do."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="boltax-save")
        while job.has_arrays and self._number_beside(job) > self._most_waiting:
            self._running[0][1].result()
        with self._lock:
            self._newest[job.kind] = job
            self._undone.pop(job.kind, None)
            undone = list(self._undone.values())
            self._undone.clear()
        self._send(self._pool, *undone, job)

    def wait(self) -> None:
        """Returns when all jobs are written, those that failed after one more try."""
        with self._lock:
            undone = list(self._undone.values())
            self._undone.clear()
        if self._pool is not None:
            self._send(self._pool, *undone)
        while self._running:
            self._running.popleft()[1].result()

    def failures(self) -> list[Failure]:
        """What failed since this was last asked; costs nothing when nothing did."""
        if not self._untold:
            return []
        with self._lock:
            untold, self._untold = self._untold, []
        return untold

    def undone(self) -> list[Job]:
        """What is not on the disk although it was tried, and nothing newer of its kind is."""
        with self._lock:
            return list(self._undone.values())

    def _send(self, pool: ThreadPoolExecutor, *jobs: Job) -> None:
        self._running.extend((job, pool.submit(self._write, job)) for job in jobs)

    def _with_arrays(self) -> list[Job]:
        while self._running and self._running[0][1].done():
            self._running.popleft()
        return [job for job, _ in self._running if job.has_arrays]

    def _number_beside(self, job: Job) -> int:
        """How many jobs with arrays there are that count together with this one."""
        own = job.kind if job.kind in self._apart else None
        kinds = (other.kind for other in self._with_arrays())
        return sum((kind if kind in self._apart else None) == own for kind in kinds)

    def _write(self, job: Job) -> None:
        try:
            job.write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            with self._lock:
                self._untold.append(Failure(job, error))
                if self._newest[job.kind] is job:  # else one that came later takes its place
                    self._undone[job.kind] = job
