"""tensorboardX's `SummaryWriter` over an event file that is written in the calling thread.

tensorboardX hands events to a thread through a bounded queue. Should that thread die, of a full
disk say, the queue fills up and the next write waits for ever: the run would hang. Here a write
that fails raises, `flush` returns when the data is on disk, and there is no thread to end.

Only `TensorBoardLogger` imports this file, and not before its first write.
"""

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboardX import FileWriter, SummaryWriter
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.record_writer import RecordWriter

_Summary: Any = import_module("tensorboardX.proto.summary_pb2").Summary
_Event: Any = import_module("tensorboardX.proto.event_pb2").Event
_SessionLog: Any = import_module("tensorboardX.proto.event_pb2").SessionLog
_FLUSH_SECONDS = 10.0
_opened = itertools.count()  # two files that are opened at once must not share a name


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

    def restart(self, step: int) -> None:
        """Opens a further file that supersedes what the others of the folder have after a step.

        A value at `step` that they have already is not written again.
        """
        self.close()
        self._get_file_writer().restart(step, _values_at(self.logdir, step))


class _Events(EventsWriter):
    """Writes events to a file of a given name; the base would choose the name."""

    def __init__(self, path: str) -> None:
        self._file_name = path
        self._num_outstanding_events = 0
        self._py_recordio_writer = RecordWriter(path)
        self._lock = threading.Lock()
        self.write_event(_Event(wall_time=time.time(), file_version="brain.Event:2"))


class _EventFile(FileWriter):
    """One event file. All methods that touch state are its own; the rest only call `add_event`."""

    def __init__(self, folder: str) -> None:  # the base would start its thread
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._events = _Events(_next_path(folder))
        self._defaults: tuple[int | None, float | None] = (None, None)
        self._known: tuple[int, frozenset[bytes]] = (-1, frozenset())  # at a step, in other files
        self._flush_at = 0.0  # the first event is flushed: TensorBoard sees the run at once
        self._close = weakref.finalize(self, self._events.close)  # also when Python exits

    def get_logdir(self) -> str:
        return self._folder

    def restart(self, step: int, known: frozenset[bytes]) -> None:
        start = _SessionLog(status=_SessionLog.START)
        self.add_event(_Event(session_log=start), step + 1)
        self.flush()
        self._known = (step, known)

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        default_step, default_time = self._defaults
        step = default_step if step is None else step
        if step is not None:
            event.step = int(step)
        is_again = event.HasField("summary") and step == self._known[0]
        if is_again and not self._drop_known(event):
            return
        event.wall_time = next(t for t in (walltime, default_time, time.time()) if t is not None)
        self._events.write_event(event)
        if time.monotonic() >= self._flush_at:
            self.flush()

    def _drop_known(self, event: Any) -> bool:
        """Takes the values out of an event that other files have; whether any is left."""
        new = [v for v in event.summary.value if v.SerializeToString() not in self._known[1]]
        del event.summary.value[:]
        event.summary.value.extend(new)
        return bool(new)

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


def _next_path(folder: str) -> str:
    """A name behind all others of the folder, whose files TensorBoard reads in order of names.

    A file of the same second, or of a clock that is ahead, would otherwise come after it.
    """
    names = (path.name.split(".")[3:4] for path in Path(folder).glob("events.out.tfevents.*"))
    newest = max((int(part) for (part,) in names if part.isdigit()), default=0)
    second = max(int(time.time()), newest + 1)
    name = f"events.out.tfevents.{second}.{socket.gethostname()}.{os.getpid()}.{next(_opened)}"
    return os.path.join(folder, name)


def _values_at(folder: str, step: int) -> frozenset[bytes]:
    """The values at a step that the event files of a folder have and that still count, as bytes."""
    known: set[bytes] = set()
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        for event in _read_events(path):
            if event.session_log.status == _SessionLog.START and event.step <= step:
                known.clear()
            elif event.step == step:
                known |= {value.SerializeToString() for value in event.summary.value}
    return frozenset(known)


def _read_events(path: Path) -> Iterator[Any]:
    """The events of a file; a last one that a kill cut off is left out."""
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:  # the length and its checksum
            (length,) = struct.unpack("<Q", head[:8])
            if len(data := file.read(length + 4)) < length + 4:
                return
            yield _Event.FromString(data[:-4])


def values_in(paths: Iterable[Path]) -> Iterator[tuple[int | None, Any]]:
    """The values of event files, each with its step; a file that is damaged ends where it is.

    Args:
        paths: of one run, in the order of their names.

    Returns:
        ``(step, value)``, a message of the type ``Summary.Value``; and ``(None, step)`` where what
        follows supersedes all from that step on.
    """
    for path in paths:
        try:
            for event in _read_events(path):
                if event.session_log.status == _SessionLog.START:
                    yield None, event.step
                yield from ((event.step, value) for value in event.summary.value)
        except (OSError, ValueError, DecodeError):
            continue
