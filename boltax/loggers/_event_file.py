"""tensorboardX's `SummaryWriter` over an event file that is written in the calling thread.

tensorboardX hands events to a thread through a bounded queue. Should that thread die, of a full
disk say, the queue fills up and the next write waits for ever: the run would hang. Here a write
that fails raises, `flush` returns when the data is on disk, and there is no thread to end.

Only `TensorBoardLogger` imports this file, and not before its first write.
"""

import contextlib
import itertools
import os
import time
import weakref
from collections.abc import Generator, Iterable
from importlib import import_module
from typing import Any

from tensorboardX import FileWriter, SummaryWriter
from tensorboardX.event_file_writer import EventsWriter

_Summary: Any = import_module("tensorboardX.proto.summary_pb2").Summary
_FLUSH_SECONDS = 10.0
_opened = itertools.count()  # two files that are opened in the same second must not share a name


class EventWriter(SummaryWriter):
    """A `SummaryWriter` for one folder; everything that it can do, without its thread.

    Args:
        folder: where the event file is made.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(logdir=folder)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None or self.all_writers is None:  # also after `close`
            self.file_writer = _EventFile(self.logdir)
            self.all_writers = {self.logdir: self.file_writer}
        return self.file_writer

    def add_values(self, values: Iterable[Any], step: int | None) -> None:
        """Writes several values as one event.

        Args:
            values: messages of the type ``Summary.Value``, or their fields as dicts.
            step: completed optimizer updates.
        """
        self._get_file_writer().add_summary(_Summary(value=list(values)), step)


class _EventFile(FileWriter):
    """One event file. All methods that touch state are its own; the rest only call `add_event`."""

    def __init__(self, folder: str) -> None:  # the base would start its thread
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        suffix = f".{os.getpid()}.{next(_opened)}"
        self._events = EventsWriter(os.path.join(folder, "events"), suffix)
        self._defaults: tuple[int | None, float | None] = (None, None)
        self._flush_at = 0.0  # the first event is flushed: TensorBoard sees the run at once
        self._close = weakref.finalize(self, self._events.close)  # also when Python exits

    def get_logdir(self) -> str:
        return self._folder

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        default_step, default_time = self._defaults
        step = default_step if step is None else step
        if step is not None:
            event.step = int(step)
        event.wall_time = next(t for t in (walltime, default_time, time.time()) if t is not None)
        self._events.write_event(event)
        if time.monotonic() >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        if self._close.alive:
            self._flush_at = time.monotonic() + _FLUSH_SECONDS
            self._events.flush()

    def close(self) -> None:
        self._close()

    def reopen(self) -> None:
        """Does nothing: after `close`, the writer opens a further file by itself."""

    @contextlib.contextmanager
    def use_metadata(
        self, *, global_step: int | None = None, walltime: float | None = None
    ) -> Generator["_EventFile"]:
        before, self._defaults = self._defaults, (global_step, walltime)
        try:
            yield self
        finally:
            self._defaults = before
