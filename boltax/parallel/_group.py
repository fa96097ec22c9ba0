"""`Group`: the processes of a job as each of them sees the others; alone, it asks nobody.

All processes run the same program. What one of them finds out by itself (a file, a clock, an error)
is told here before anybody acts on it.
"""

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, final

import jax

from boltax.errors import ProcessError
from boltax.parallel._coordination import WAIT_SECONDS, Board, board, told

T = TypeVar("T")
LOOK_SECONDS = 1.0
"""Seconds between two looks whether another process has failed."""
STALL_SECONDS = 3600.0
"""How long a run may come no further: a process that is stuck would keep all others waiting."""
GRACE_SECONDS = 10.0
"""How long the first process, which holds the board, waits for one that has failed to leave."""


@final
class Group:
    """The processes of a job.

    Attributes:
        index: the number of this one.
        count: how many there are.
        last_words: called in another thread when this process has to leave because of another, with
            what is the matter with that.
        is_ended: whether all of them are on their way out, for the same reason.
        stall_seconds: a run that comes no further for so long ends in all processes; None for
            never.

    Args:
        index: see there.
        count: see there.
        notices: on which they tell each other; None for a process alone.
    """

    def __init__(self, index: int = 0, count: int = 1, notices: Board | None = None) -> None:
        self.index, self.count, self._board = index, count, notices
        self.last_words: Callable[[str], None] = _nothing
        self.is_ended = self._has_told = False
        self.stall_seconds: float | None = STALL_SECONDS
        self._at: tuple[str, float] | None = None
        self._numbers: dict[str, int] = {}

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self._board is None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files that one of them writes."""
        return self.index == 0

    def exchange(
        self, what: str, value: Any, *, thread: str = "main", seconds: float = WAIT_SECONDS
    ) -> list[Any]:
        """What all processes say, in their order; each of them comes here.

        Args:
            what: about what, for messages.
            value: plain JSON.
            thread: in which thread: each has an order of its own.
            seconds: how long to wait for the others.

        Raises:
            ProcessError: when one of them has failed, or does not come.
        """
        if self._board is None:
            return [value]
        number = self._numbers[thread] = self._numbers.get(thread, 0) + 1
        name = f"boltax/{thread}/{number}"
        self._board.write(f"{name}/{self.index}", value)
        if not self.is_first:
            return self._board.read(f"{name}/all", 0, what, seconds)
        others = range(1, self.count)
        said = [value, *(self._board.read(f"{name}/{i}", i, what, seconds) for i in others)]
        self._board.write(f"{name}/all", said)
        self._board.forget(f"boltax/{thread}/{number - 1}")  # all have read it, who are here
        return said

    def together(self, what: str, act: Callable[[], T], *, thread: str = "main") -> T:
        """Does something in each process; where it fails in one, it fails in all.

        Raises:
            ProcessError: when it has failed in another process; its own error in that.
        """
        return self._tried(what, act, thread, lambda _: None)[0]

    def by_first(self, what: str, act: Callable[[], T], *, thread: str = "main") -> T | None:
        """Does something in the first process, while the others wait; see `together`.

        Returns:
            What it gave, in the first process; None in the others.
        """
        do: Callable[[], T | None] = act if self.is_first else lambda: None
        return self.together(what, do, thread=thread)

    def of_first(self, what: str, act: Callable[[], T], *, thread: str = "main") -> T:
        """What the first process finds out or does, as all others get it.

        Args:
            what: in words.
            act: called in the first process; gives plain JSON.
            thread: see `exchange`.

        Raises:
            ProcessError: in the others, when it fails in the first.
        """
        do: Callable[[], Any] = act if self.is_first else lambda: None
        return self._tried(what, do, thread, lambda result: result)[1][0]

    def _tried(
        self, what: str, act: Callable[[], T], thread: str, tell: Callable[[T], Any]
    ) -> tuple[T, list[Any]]:
        """What this process gets by something that all do, and what each of them tells of it."""
        if self._board is None:
            result = act()
            return result, [tell(result)]
        done: Any = None
        error: Exception | None = None
        try:
            done = act()
        except Exception as caught:  # noqa: BLE001 - told to the others, then raised
            error = caught
        own = [_words(error), None] if error is not None else [None, tell(done)]
        said = self.exchange(what, own, thread=thread)
        if error is not None:
            raise error
        for index, (text, _) in enumerate(said):
            if text is not None:
                raise ProcessError(
                    f"Received an error in process {index} from {what}: {text}; expected it to "
                    "work in all of them. See what that process says."
                )
        return done, [value for _, value in said]

    def check_same(self, what: str, values: dict[str, Any]) -> None:
        """Refuses processes that are not alike.

        Args:
            what: in words.
            values: plain JSON by name, which has to be the same in all.

        Raises:
            ProcessError: naming what differs.
        """
        each = self.exchange(what, values)
        for index, other in enumerate(each):
            names = {**each[0], **other}
            differ = [n for n in names if each[0].get(n) != other.get(n)]
            if differ:
                name = differ[0]
                raise ProcessError(
                    f"Received processes with different {name} ({what}): process 0 has "
                    f"{_short(each[0].get(name))}, process {index} {_short(other.get(name))}; "
                    "expected the same program, settings, data and packages in all of them. Start "
                    "all with the same files."
                )

    def note(self, where: str) -> None:
        """Notes where this process is in its run."""
        self._at = where, time.monotonic()

    def end_run(self) -> None:
        """Forgets the run, which is over."""
        self._at, self.last_words = None, _nothing

    def fail(self, error: BaseException) -> None:
        """Has all others leave: this process has failed, and they have not."""
        if self._board is not None and not self.is_ended:
            self._board.fail(self.index, _words(error))

    def watch(self) -> None:
        """Begins to look whether another process has failed, and to say when this one does."""
        if self._board is None:
            return
        if not self.is_first:  # what the first one says need not be said by each
            logging.getLogger("boltax").addFilter(_is_error)
        show = sys.excepthook

        def failed(kind: Any, error: BaseException, trace: Any) -> None:
            self.fail(error)
            show(kind, error, trace)
            self._leave_after_failure()

        sys.excepthook = failed
        threading.Thread(target=self._look, args=(self._board,), daemon=True).start()

    def _look(self, notices: Board) -> None:
        end = threading.Event()
        atexit.register(end.set)
        while not end.wait(LOOK_SECONDS):
            failure = notices.failure() or self._stalled(notices)
            if failure is None or failure[0] == self.index or self.is_ended:
                continue
            self._tell(failure)
            last = threading.Thread(target=self.last_words, args=(told(failure),), daemon=True)
            last.start()
            last.join(5.0)
            if self.is_first:  # with it the board goes: the one that failed shows its error before
                notices.wait_for_leaving(failure[0], GRACE_SECONDS)
                time.sleep(LOOK_SECONDS)
            # a step that waits for the other process never comes back
            os._exit(1)

    def _tell(self, failure: tuple[int, str]) -> None:
        """Says once why this process leaves."""
        if not self._has_told:
            self._has_told = True
            text = f"boltax: process {self.index} leaves. {told(failure)}\n"
            os.write(2, text.encode(errors="replace"))

    def _stalled(self, notices: Board) -> tuple[int, str] | None:
        """Has all leave when this process has come no further for too long."""
        at, most = self._at, self.stall_seconds
        notices.note(self.index, at[0] if at else "")
        if at is None or most is None or time.monotonic() - at[1] < most:
            return None
        places = "; ".join(f"process {i} at {notices.noted(i)}" for i in range(self.count))
        notices.fail(-1, f"TimeoutError: no process came further for {most:.0f} s: {places}")
        return notices.failure()

    def _leave_after_failure(self) -> None:
        """Ends this process, whose error is shown: to leave in order takes the others."""
        if self._board is None or self.is_ended:
            return
        if (failure := self._board.failure()) is not None and failure[0] != self.index:
            self._tell(failure)
        self._board.leave(self.index)
        if self.is_first:  # with it the board goes: the others look once more before
            time.sleep(3 * LOOK_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _nothing(_: str) -> None:
    """Has nothing to say."""


ALONE = Group()
"""A process without others."""
_groups: dict[Any, Group] = {}


def group() -> Group:
    """The processes of this one's job; itself alone where there are no others.

    Asks JAX's backend for the number of processes, if this one was joined with others.
    """
    if not jax.distributed.is_initialized():
        return ALONE
    notices = board()
    if notices is None or jax.process_count() == 1:
        return ALONE
    key = jax.process_index(), jax.process_count()
    if key not in _groups:
        _groups[key] = Group(*key, notices)
        _groups[key].watch()
    return _groups[key]


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:1500]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
