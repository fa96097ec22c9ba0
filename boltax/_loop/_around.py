"""The frame of a run: one writer in its folder, signals noted, an end that saves what it can."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import jax

from boltax._loop._advice import followed
from boltax._loop._saving import finish_saving, save_resume
from boltax._loop._trainees import Loaders, Trainees
from boltax.checkpoint._end_file import End, write_end
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._shared import check_shared
from boltax.errors import BoltaxError, ProcessError
from boltax.parallel._group import Group, group

PATIENCE = 5.0
"""Seconds within which the others have to fail, too, when this process does for a common reason."""
AnyTrainees = TypeVar("AnyTrainees", bound=Trainees)
_log = logging.getLogger("boltax")


@contextmanager
def around(
    make: Callable[[RunLock], AnyTrainees], folder: str, loaders: Loaders
) -> Generator[AnyTrainees]:
    """A context for all of a run, from its first change of the folder to its last.

    Args:
        make: gives what is trained, for the lock of the folder, which it may move to another one.
        folder: the trainer's.
        loaders: the data, for the advice at the end.

    Raises:
        RunDirectoryError: when another process trains in the same folder.
        SystemExit: after a signal, when the run is saved; `KeyboardInterrupt` in a notebook.
    """
    with _locked(folder) as lock:
        # within the lock: a call that is refused has changed nothing of the run that holds it
        trainees = make(lock)
        run = trainees.run
        with run.signals, _ended(trainees, loaders):
            yield trainees
    if run.signals.received is not None:
        # outside the lock: whoever goes on with the run may begin
        run.signals.leave()


@contextmanager
def _locked(folder: str) -> Generator[RunLock]:
    """The lock of the folder, which the first process of a job holds for all of them.

    Raises:
        RunDirectoryError: when another job trains there.
        ProcessError: likewise in its other processes, or when these do not see the folder.
    """
    processes, lock = group(), RunLock(folder)
    enter = lock.__enter__ if processes.is_first else lambda: lock
    processes.together("the lock of the run's folder", enter)
    try:
        check_shared(processes, folder)
        yield lock
    finally:
        if processes.is_first:
            lock.__exit__(None, None, None)


@contextmanager
def _ended(trainees: Trainees, loaders: Loaders) -> Generator[None]:
    """A context that saves what it can when something ends the run early, and closes all."""
    run, parts = trainees.run, trainees.parts
    caught: BaseException | None = None
    processes = parts.steps.placement.group
    if not processes.is_alone:
        processes.last_words = partial(_last_words, trainees)
    try:
        yield
    except BaseException as error:
        caught = error
        if run.signals.received is None:
            run.is_saveable &= _is_common(processes, error, run.step)
        _end_early(trainees, error)
        if run.signals.received is None:
            raise
    finally:
        run.is_active = run.is_saveable = False
        processes.end_run()
        # within the lock: who comes next finds all of it written, or nothing
        parts.saver.wait()
        run.sources.clear()
        trainees.close()
        parts.progress.close()
        _write_end(trainees, caught)
        parts.progress.note(run.ledger.report(followed(parts, loaders.train)))


def _is_common(processes: Group, error: BaseException, step: int) -> bool:
    """Whether all processes end here for the same reason; else the others are told to leave."""
    if processes.is_alone:
        return True
    try:
        said = processes.exchange(
            "the end of the run", [type(error).__name__, step], thread="end", seconds=PATIENCE
        )
    except ProcessError:
        said = []
    if said and all(each == said[0] for each in said):
        processes.is_ended = True
        return True
    # what one of them said may be older than this: it has waited for the others in vain
    if isinstance(error, jax.errors.JaxRuntimeError):  # its devices met those of another
        error.add_note(
            "Another process of the job has ended, or cannot be reached: see its output."
        )
    processes.fail(error)
    return False


def _last_words(trainees: Trainees, why: str) -> None:
    """Leaves the records behind, and how the run ended, when another process has failed."""
    trainees.parts.logger.flush()
    _write_end(trainees, ProcessError(why))


def _write_end(trainees: Trainees, error: BaseException | None) -> None:
    """Notes in the run's folder how it ended; what cannot be written is of no use to the run."""
    run, folder = trainees.run, trainees.parts.folder
    if not trainees.parts.steps.placement.group.is_first:
        return
    is_cut = run.limit_reached is not None and not run.is_over
    how, reason = "stopped" if is_cut else "finished", run.stop_reason
    if run.signals.received is not None:
        how, reason = "interrupted", None
    elif error is not None:
        how = "pruned" if _is_pruned(error) else "failed"
        reason = f"{type(error).__name__}: {str(error)[:500]}"
    if how == "failed" and RunDirectory(folder).end.exists():
        return  # it failed before it began: the one before it counts
    try:
        write_end(folder, End(how, reason, run.step, run.epoch, run.ledger.seconds()))
    except BoltaxError as failure:
        _log.warning("%s", failure)


def _end_early(trainees: Trainees, error: BaseException) -> None:
    """Saves what can be saved and closes the loggers; nothing here hides the error."""
    run, parts = trainees.run, trainees.parts
    is_interrupted, is_pruned = run.signals.received is not None, _is_pruned(error)
    try:
        if not is_interrupted:
            trainees.on_exception(error)
        elif isinstance(error, Exception):  # such as that of a loader whose workers got the signal
            _log.warning("On its way out the run met %s: %s", type(error).__name__, error)
        if run.is_saveable and not is_pruned:
            save_resume(trainees)
            if not finish_saving(parts, run) and parts.checkpoint.keep_last:
                parts.progress.note(
                    f"Saved step {run.step}: train_model(..., resume=True) goes on from there"
                )
    except Exception as failure:
        if is_interrupted:
            raise
        error.add_note(f"the run could not be saved: {type(failure).__name__}: {failure}")
    finally:
        # a trial that is pruned has done what it was there for
        parts.logger.finalize(
            "success" if is_pruned else "interrupted" if is_interrupted else "failed"
        )


def _is_pruned(error: BaseException) -> bool:
    return type(error).__name__ == "TrialPruned"
