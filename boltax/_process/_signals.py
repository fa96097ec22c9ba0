"""SIGTERM, SIGUSR1, SIGHUP and Ctrl-C while a run trains: noted, and acted on between two steps.

A handler only notes its signal. It never raises: the state is on its way through a compiled step,
whose memory is donated, and an exception there would leave nothing to save. A second signal leaves
at once.
"""

import builtins
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

WATCHED = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")


class Interrupted(BaseException):
    """Raised by `Signals.poll` to end the run; never seen by users."""


class Signals:
    """The signals that ask this process to leave; a context manager around a run.

    Outside of the main thread, where Python allows no handlers, none is watched. A signal that the
    process ignores stays ignored.

    Attributes:
        noted: the first signal that came to this process, or None.
        agreed: the first that all processes of a job know of.
        is_agreed_on: whether there are other processes, which have to know first.
    """

    def __init__(self) -> None:
        self.noted: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        self.is_agreed_on = False
        self._previous: dict[signal.Signals, Any] = {}
        self._is_watching = False

    @property
    def received(self) -> signal.Signals | None:
        """The signal that is acted on, or None."""
        return self.agreed if self.is_agreed_on else self.noted

    def __enter__(self) -> Self:
        self._is_watching = True
        if threading.current_thread() is threading.main_thread():
            for name in WATCHED:
                number = getattr(signal, name, None)  # Windows lacks two of them
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_watching = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Raises `Interrupted` when a signal has come, while the run lasts."""
        if self.received is not None and self._is_watching:
            raise Interrupted

    def leave(self) -> NoReturn:
        """Leaves as the signal asks, when all is saved and the handlers are those from before.

        Raises:
            KeyboardInterrupt: for Ctrl-C in a notebook or interactive session.
            SystemExit: otherwise, with 128 and the number of the signal, as shells have it.
        """
        number = self.received or signal.SIGTERM
        if number is signal.SIGINT:
            raise KeyboardInterrupt if _is_interactive() else SystemExit(128 + number)
        if callable(self._previous.get(number)) or _is_interactive():
            # A cluster's plugin may wait for it; and a kernel does not end by SystemExit.
            os.kill(os.getpid(), number)
        raise SystemExit(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is None:
            self.noted = signal.Signals(number)
            text = f"boltax: {self.noted.name}: saving after this step; again leaves at once\n"
            os.write(2, text.encode())  # print() could meet a print() that it interrupts
        elif number == signal.SIGINT and _is_interactive():
            raise KeyboardInterrupt
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _is_interactive() -> bool:
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or hasattr(builtins, "get_ipython")
