"""Jobs in the background: their order, how many wait, and what becomes of one that fails."""

import threading
import time

import pytest

from boltax.checkpoint._saver import Job, Saver

SECONDS = 5.0


class Disk:
    """Writes when it is allowed to, and notes in which order."""

    def __init__(self):
        self.written, self.gate = [], threading.Semaphore(0)

    def job(self, kind, number, **options):
        def write():
            assert self.gate.acquire(timeout=SECONDS)
            self.written.append((kind, number))

        return Job(f"{kind} {number}", kind, write, **options)

    def let(self, number):
        for _ in range(number):
            self.gate.release()


@pytest.fixture
def disk():
    return Disk()


def submitted_in_time(saver, job):
    """Whether `submit` returns although nothing is written meanwhile."""
    thread = threading.Thread(target=saver.submit, args=(job,), daemon=True)
    thread.start()
    thread.join(timeout=0.3)
    return not thread.is_alive(), thread


def test_a_saver_knows_what_it_is_busy_with(disk):
    saver = Saver()
    saver.submit(disk.job("best", 1))
    assert saver.is_busy_with("best")
    assert not saver.is_busy_with("resume")
    saver.submit(disk.job("resume", 1))
    assert saver.is_busy_with("resume")
    disk.let(2)
    saver.wait()
    assert not saver.is_busy_with("best")
    assert not saver.is_busy_with("resume")


def test_a_resume_checkpoint_has_a_place_of_its_own_behind_two_best_models(disk):
    saver = Saver()
    saver.submit(disk.job("best", 1))
    saver.submit(disk.job("best", 2))
    in_time, _ = submitted_in_time(saver, disk.job("resume", 1))
    assert in_time
    disk.let(3)
    saver.wait()
    assert disk.written == [("best", 1), ("best", 2), ("resume", 1)]


def test_a_third_best_model_waits_and_so_bounds_the_copies_in_memory(disk):
    saver = Saver()
    for job in (disk.job("best", 1), disk.job("resume", 1), disk.job("best", 2)):
        assert submitted_in_time(saver, job)[0]
    in_time, thread = submitted_in_time(saver, disk.job("best", 3))
    assert not in_time
    disk.let(1)
    thread.join(timeout=SECONDS)
    assert not thread.is_alive()
    disk.let(3)
    saver.wait()
    assert disk.written == [("best", 1), ("resume", 1), ("best", 2), ("best", 3)]


def test_a_second_resume_checkpoint_waits_for_none_but_its_own_kind(disk):
    saver = Saver(most_waiting=0)
    assert submitted_in_time(saver, disk.job("best", 1))[0]
    assert submitted_in_time(saver, disk.job("resume", 1))[0]
    in_time, thread = submitted_in_time(saver, disk.job("resume", 2))
    assert not in_time
    disk.let(3)
    thread.join(timeout=SECONDS)
    saver.wait()
    assert disk.written == [("best", 1), ("resume", 1), ("resume", 2)]


def test_jobs_without_arrays_neither_wait_nor_count(disk):
    saver = Saver(most_waiting=0)
    for number in range(5):
        assert submitted_in_time(saver, disk.job(f"row {number}", 0, has_arrays=False))[0]
    assert not saver.is_busy_with("row 1")
    disk.let(5)
    saver.wait()
    assert len(disk.written) == 5


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_however_often_others_come_a_due_one_waits_for_two_of_them_at_most(seconds):
    saver, written = Saver(), []

    def job(kind, number):
        def write():
            time.sleep(seconds)
            written.append((kind, number))

        return Job(f"{kind} {number}", kind, write)

    asked = []
    for number in range(40):
        saver.submit(job("best", number))
        if not saver.is_busy_with("resume"):
            asked.append(number)
            saver.submit(job("resume", number))
    saver.wait()
    resumes = [number for kind, number in written if kind == "resume"]
    assert resumes == asked
    assert max(b - a for a, b in zip(resumes, [*resumes[1:], 40], strict=True)) <= 4
