"""One of the workers that share a study: asks for trials, ends them, and looks after lost ones.

Nothing but the storage of the study connects workers. Each signs the trials that it runs, and gives
a sign of life at intervals: a number that grows. A worker whose number has not grown for six of its
intervals, by the clock of the one who looks, is taken for dead. Its trials are failed, which the
storage lets only one worker do, and put into the queue again as trials with the same
hyperparameters; so each is run to its end once. All of it is kept in user attributes, which
Optuna's dashboard shows, and works the same in every storage:

    boltax:worker     of a trial: who runs it
    boltax:retry_of   of a trial: the number of the lost one that it repeats
    boltax:attempts   of a trial: how many workers it has lost
    boltax:surplus    of a trial: why it was not run; workers may ask at the same moment
    boltax:reason     of a trial: why it has ended
    boltax:alive:...  of the study: [number, interval] of each worker
"""

import itertools
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from boltax.tune._space import SearchSpace, optuna_module

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

WORKER, RETRY_OF, ATTEMPTS = "boltax:worker", "boltax:retry_of", "boltax:attempts"
SURPLUS, REASON, ALIVE = "boltax:surplus", "boltax:reason", "boltax:alive:"
SILENT = 6
"""Intervals without a sign of life after which a worker is taken for dead."""
MOST_ATTEMPTS = 3
"""Workers that a trial may take with it before it counts as failed."""
OF_PRUNERS = "completed_rung"
"""How the attributes begin in which pruners of Optuna keep how far a trial has come."""
_log = logging.getLogger("boltax")


class Worker:
    """This process, as one of those at work on a study.

    Attributes:
        name: of this worker, another one in each process and at each start.
        open: the trials that it has asked for and that have not ended, by number.

    Args:
        study: the study.
        space: what trials are asked for.
        n_trials: how many the study shall have, those of all workers together.
        interval: seconds between two signs of life.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        study: "optuna.Study",
        space: SearchSpace,
        *,
        n_trials: int,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.open: dict[int, optuna.Trial] = {}
        self._study, self._space, self._n_trials = study, space, n_trials
        self._interval, self._clock = interval, clock
        self._heard: dict[str, tuple[Any, float]] = {}
        self._count = itertools.count(1)
        self._is_exhausted = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="boltax-alive", daemon=True)
        self._states = optuna_module().trial.TrialState

    def __enter__(self) -> Self:
        self.give_sign()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Puts the trials back that have not ended, and falls silent."""
        try:
            for trial in list(self.open.values()):
                self.open.pop(trial.number)
                why = f"its worker ended: {error!r}"[:200]
                self._put_back(
                    self._trial(trial.number), why, is_attempt=isinstance(error, Exception)
                )
        finally:
            self._is_over.set()
            self._thread.join()

    def ask(self) -> "optuna.Trial | None":
        """The next trial of the study, with its hyperparameters; None when there is none now."""
        self.take_up_lost()
        trials = self._trials()
        is_waiting = any(trial.state is self._states.WAITING for trial in trials)
        is_full = self._is_exhausted or len(counting(trials)) >= self._n_trials
        if is_full and not is_waiting:
            return None
        trial = self._study.ask(self._space.distributions)
        trial.set_user_attr(WORKER, self.name)
        before = [other for other in counting(self._trials()) if other.number < trial.number]
        if len(before) >= self._n_trials and RETRY_OF not in trial.user_attrs:
            trial.set_user_attr(SURPLUS, f"the study has its {self._n_trials} trials")
            self._tell(trial.number, self._states.FAIL)
            return None
        self.open[trial.number] = trial
        return trial

    def report(self, trial: "optuna.Trial", value: float, epoch: int) -> str | None:
        """Notes a trial's value after an epoch.

        Returns:
            Why the trial should end now, or None.
        """
        try:
            trial.report(value, epoch)
        except RuntimeError:
            if self._is_mine(trial):
                raise
            self.open.pop(trial.number, None)
            return "another worker has taken the trial up"
        return "pruned" if trial.should_prune() else None

    def end(self, trial: "optuna.Trial", value: float | None, attrs: Mapping[str, Any]) -> None:
        """Ends a trial: with its value, or as pruned, and then its value is the last reported."""
        self.open.pop(trial.number, None)
        if not self._is_mine(trial):
            return
        for name, attr in attrs.items():
            trial.set_user_attr(name, attr)
        state = self._states.PRUNED if value is None else self._states.COMPLETE
        self._tell(trial.number, state, value)

    def take_up_lost(self) -> None:
        """Puts the trials of workers that have died into the queue again."""
        running = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        foreign = [trial for trial in running if trial.number not in self.open]
        if not foreign:
            return
        signs = self._study.user_attrs
        for trial in foreign:
            if self._is_lost(trial, signs):
                why = "its worker gave no sign of life"
                _log.warning("Trial %d is taken up again: %s.", trial.number, why)
                self._put_back(trial, why, is_attempt=True)

    def is_study_over(self) -> bool:
        """Whether every trial of the study has ended, those of the other workers included."""
        trials = self._trials()
        has_all = self._is_exhausted or len(counting(trials)) >= self._n_trials
        return has_all and all(trial.state.is_finished() for trial in trials)

    def trials_left(self) -> int:
        """Trials that nobody has asked for yet, as far as they are to be expected here."""
        workers = sum(name.startswith(ALIVE) for name in self._study.user_attrs)
        return max(self._n_trials - len(counting(self._trials())), 0) // max(workers, 1)

    def wait(self) -> None:
        """Waits a little: another worker may end a trial, or die."""
        time.sleep(min(self._interval, 1.0))

    def give_sign(self) -> None:
        """Tells the other workers that this one lives."""
        self._study.set_user_attr(f"{ALIVE}{self.name}", [next(self._count), self._interval])

    def _trials(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> "FrozenTrial":
        return next(trial for trial in self._trials() if trial.number == number)

    def _is_mine(self, trial: "optuna.Trial") -> bool:
        """Whether a trial still is this worker's: it is not when this one was taken for dead."""
        return self._trial(trial.number).state is self._states.RUNNING

    def _put_back(self, trial: "FrozenTrial", why: str, *, is_attempt: bool) -> None:
        attempts = int(trial.user_attrs.get(ATTEMPTS, 0)) + is_attempt
        if not self._tell(trial.number, self._states.FAIL) or attempts >= MOST_ATTEMPTS:
            return
        repeated = {**trial.user_attrs, RETRY_OF: trial.number, ATTEMPTS: attempts, REASON: why}
        repeated.pop(WORKER, None)
        system = trial.system_attrs
        self._study.add_trial(
            optuna_module().trial.create_trial(
                state=self._states.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs={n: v for n, v in system.items() if not n.startswith(OF_PRUNERS)},
                user_attrs=repeated,
            )
        )

    def _tell(self, number: int, state: Any, value: float | None = None) -> bool:
        """Ends a trial; False when it has ended before, by another worker."""
        try:
            self._study.tell(number, value, state=state)
        except (RuntimeError, ValueError) as error:
            if "Study.stop" in str(error):  # so samplers of grids say that there is nothing left
                self._is_exhausted = True
                return True
            if self._trial(number).state is self._states.RUNNING:
                raise
            return False
        return True

    def _is_lost(self, trial: "FrozenTrial", signs: Mapping[str, Any]) -> bool:
        """Whether the worker of a running trial is dead; one that did not sign yet is silent."""
        owner = trial.user_attrs.get(WORKER)
        if owner is None and trial.params:
            return False  # of somebody who uses Optuna without this
        number, interval = signs.get(f"{ALIVE}{owner}", (0, self._interval))
        now, key = self._clock(), owner or f"trial {trial.number}"
        if self._heard.get(key, (None, now))[0] != number:
            self._heard[key] = number, now
        return now - self._heard[key][1] > SILENT * interval

    def _live(self) -> None:
        while not self._is_over.wait(self._interval):
            try:
                self.give_sign()
            except Exception:  # noqa: BLE001 - the storage may be back at the next time
                _log.warning("No sign of life could be written to the study.", exc_info=True)


def counting(trials: "Iterable[FrozenTrial]") -> "list[FrozenTrial]":
    """The trials that count: not those that are repeated, or were one too many."""
    trials = list(trials)
    repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [t for t in trials if t.number not in repeated and SURPLUS not in t.user_attrs]
