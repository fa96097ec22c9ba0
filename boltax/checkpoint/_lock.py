"""One writer for each run's folder: a lock that ends with the process that holds it.

It is a record lock of the operating system on the file ``.lock``: it is gone with its process, also
after kill -9, and workers that are forked do not inherit it. What stands in the file is for people
and proves nothing. A trap: closing any descriptor of the file gives the lock up, so a process never
opens it while it holds it, and keeps a list of the locks that it holds.
"""

import datetime as dt
import errno
import json
import logging
import os
import re
import socket
import stat
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from boltax.checkpoint._files import read_json, unwritable
from boltax.errors import CheckpointError, RunDirectoryError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_TAKEN = {errno.EACCES, errno.EAGAIN}


class _Held(NamedTuple):
    pid: int
    descriptor: int
    holder: dict[str, Any]


_held: dict[str, _Held] = {}  # by folder; a forked process finds its parent's, told by the pid
_guard = threading.Lock()


class RunLock:
    """Keeps every other writer out of a run's folder.

    Args:
        directory: the run's folder; made where it is missing.

    Raises:
        RunDirectoryError: on entering, when there is another writer, in this process or in another,
            naming it; or when the folder cannot be written.

    Example:
        >>> with RunLock("run"):
        ...     is_held("run")
        True
        >>> is_held("run")
        False
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def __enter__(self) -> Self:
        key = os.path.realpath(self.directory)
        with _guard:
            if (own := _own(key)) is not None:
                raise _taken(self.directory, own.holder)
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(_path(self.directory), _flags() | os.O_CREAT, 0o666)
            except OSError as error:
                raise unwritable(_path(self.directory), error) from error
            try:
                _check_is_file(descriptor, self.directory)
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            holder = _this_process()
            os.ftruncate(descriptor, 0)
            os.write(descriptor, (json.dumps(holder) + "\n").encode())
            _held[key] = _Held(os.getpid(), descriptor, holder)
        return self

    def move(self, directory: str | os.PathLike[str]) -> None:
        """Keeps other writers out of another folder instead; held all the time.

        Args:
            directory: the other folder.

        Raises:
            RunDirectoryError: when there is another writer; the lock is then as it was.
        """
        other = RunLock(directory)
        other.__enter__()
        self.__exit__(None, None, None)
        self.directory = other.directory

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _guard:
            key = os.path.realpath(self.directory)
            if (own := _own(key)) is not None:
                del _held[key]
                os.close(own.descriptor)

    def _take(self, descriptor: int) -> None:
        for _ in range(3):  # somebody who asks `is_held` has it for a moment
            if _try_to_lock(descriptor, self.directory):
                return
            time.sleep(0.05)
        raise _taken(self.directory, _read_holder(self.directory))


def is_held(directory: str | os.PathLike[str]) -> bool:
    """Whether somebody is writing a run in this folder, in this process or in another."""
    directory = Path(directory)
    with _guard:
        if _own(os.path.realpath(directory)) is not None:
            return True
        try:
            descriptor = os.open(_path(directory), _flags())
        except OSError:
            return False
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            return not _try_to_lock(descriptor, directory)
        finally:
            os.close(descriptor)


def _own(key: str) -> _Held | None:
    own = _held.get(key)
    return own if own is not None and own.pid == os.getpid() else None


def _path(directory: Path) -> Path:
    return directory / ".lock"


def _flags() -> int:
    names = ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK")  # opening a pipe may wait for ever
    return os.O_RDWR | sum(getattr(os, name, 0) for name in names)


def _check_is_file(descriptor: int, directory: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise RunDirectoryError(
            f"Received {_path(directory)}, which is no file but a pipe or a device; expected the "
            "file by which boltax keeps other writers out. Delete it: it holds nothing."
        )


def _try_to_lock(descriptor: int, directory: Path) -> bool:
    """Whether nobody else has it, as far as the file system can tell."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "this system has no record locks")
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in _UNSUPPORTED:
            raise unwritable(_path(directory), error) from error
        logging.getLogger("boltax").warning(
            "Received the run's folder %s, where files cannot be locked (%s); expected to keep "
            "other writers out. See to it yourself that no second process trains in it.",
            directory,
            error,
        )
    return True


def _this_process() -> dict[str, Any]:
    now = dt.datetime.now().astimezone()
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": now.isoformat(timespec="seconds"),
    }


def _read_holder(directory: Path) -> dict[str, Any]:
    try:
        holder = read_json(_path(directory))
    except CheckpointError:
        holder = None
    return holder if isinstance(holder, dict) else {}


def _shown(value: Any) -> str:
    """What stands in the file, which anybody may have written, as a word of a message."""
    if type(value) is int and 0 < value < 2**63:
        return str(value)
    is_word = isinstance(value, str) and re.fullmatch(r"[\w.:+-]{1,100}", value)
    return str(value) if is_word else "unknown"


def _taken(directory: Path, holder: dict[str, Any]) -> RunDirectoryError:
    pid, host, since = (_shown(holder.get(name)) for name in ("pid", "host", "since"))
    return RunDirectoryError(
        f"Received the run's folder {directory}, in which process {pid} on {host} has been "
        f"training since {since}; expected one writer at a time. Give another folder, "
        f"logger_params={{'log_dir': ...}}, or stop that process first: kill {pid}."
    )
