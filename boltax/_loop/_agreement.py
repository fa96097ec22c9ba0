"""What the processes of a job decide together about a run, so that all of them do the same.

A signal, a clock and a request of a callback are known to one process first. It tells the others at
the next chunk, and all act on it at the same one: at once where a callback was asked, a validation
or an epoch has ended, else a few chunks later, so that no step is waited for.

What follows from steps and metrics alone needs no agreement: every process sees the same.
"""

import signal
from typing import Any

from boltax.parallel._flags import Flags
from boltax.parallel._placement import Placement

_SIGNAL, _STOP, _TIME, _SAVE, _VALIDATE = range(5)


class Agreement:
    """The decisions of a run in a job of several processes.

    Attributes:
        wish: why a callback of this process asks to stop; None for no reason.
        is_time_up: whether `max_time` is used up, as all processes know.
        was_told: whether callbacks were told of something since this was last asked.

    Args:
        run: the run; what is agreed on is noted in it.
        placement: the devices of all processes.
    """

    def __init__(self, run: Any, placement: Placement) -> None:
        self._run, self._group = run, placement.group
        self._flags = Flags(placement.mesh, 5)
        self.wish: str | None = None
        self.is_time_up = self.was_told = False
        run.signals.is_agreed_on = True
        self._note_clocks(0, 0)

    def ask(self, *, at_once: bool = False) -> None:
        """Tells the others what this process knows, and notes what all of them know.

        Args:
            at_once: whether what is told now is acted on now.
        """
        run, clocks = self._run, [0, 0]
        self._group.note(f"epoch {run.epoch}, step {run.step}, {run.stage.name.lower()}")
        if self._group.is_first:  # its clock is that of all
            clocks = [int(run.clock.is_time()), run.validations.times()]
        told = [
            int(run.signals.noted or 0),
            int(self.wish is not None),
            int(run.limits.is_time_up()),
        ]
        found = self._flags.tell([*told, *clocks], at_once=at_once or self.was_told)
        self.was_told = False
        if found[_SIGNAL]:
            run.signals.agreed = signal.Signals(found[_SIGNAL])
        if found[_STOP] and run.counters.stop_reason is None:
            run.count(stop_reason=self.wish or "a callback of another process asked for it")
        self.is_time_up |= bool(found[_TIME])
        self._note_clocks(found[_SAVE], found[_VALIDATE])

    def _note_clocks(self, save: int, validate: int) -> None:
        self._run.clock.is_told = bool(save)
        self._run.validations.tell(validate)

    def forget(self) -> None:
        """Forgets what was said before a clock began anew."""
        self._flags.forget()
        self._note_clocks(0, 0)

    def any_of(self, what: str, value: bool) -> bool:
        """Whether something holds in any process; each of them asks."""
        return any(self._group.exchange(what, value))
