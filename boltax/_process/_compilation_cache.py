"""Keeps compiled programs on disk, so that a second run of the same program compiles nothing.

JAX has such a cache; it is off until it has a folder, and then leaves out what compiles within a
second. Here it gets a folder of the user's own and takes every program. What the user has set stays
as it is: a folder (`jax_compilation_cache_dir`), the cache switched off, thresholds.
`BOLTAX_COMPILATION_CACHE` names another folder, or is `off`.

The folder is kept small by what is here and not by `jax_compilation_cache_max_size`: that one
needs a further package, takes a lock for each entry and reads the whole folder to write one.

A cache saves time and nothing else: no failure here or in JAX's reading and writing ends a run.
Changes settings of JAX, so it is called by a trainer and never by an import.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import stat
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from boltax._process._user_cache import user_cache
from boltax.errors import ConfigurationError

VARIABLE = "BOLTAX_COMPILATION_CACHE"
OFF = "off"
MAX_BYTES = 2**30
MAX_ENTRIES = 10_000
MIN_FREE_BYTES = 2**26

_STAMP = ".boltax-checked"  # its time says up to which time entries have been looked at
_CHECK_EVERY = 3600.0
_IN_WRITING = 60.0  # seconds for which an incomplete entry may be one that another process writes
_ENTRY = re.compile(r"-[0-9a-f]{64}-cache$")
_JAX_MIN_COMPILE_TIME = 1.0  # JAX's own default, which nobody has set
_JAX_WARNINGS = "Error (reading|writing) persistent compilation cache entry"

_log = logging.getLogger("boltax")


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    written: float
    used: float


def enable_compilation_cache() -> Path | None:
    """Switches JAX's persistent compilation cache on, unless the user has settled it already.

    Works after programs have been compiled, too; those that come later are cached.

    Returns:
        The folder that JAX uses from now on, or None where nothing was changed.

    Raises:
        ConfigurationError: when the environment variable is neither ``off`` nor the full path of a
            folder.
    """
    wanted = _wanted_folder()
    if wanted is None or not _setting("enable_compilation_cache"):
        return None
    if _setting("compilation_cache_dir") is not None:
        return None
    try:
        folder = _prepare(wanted)
    except (OSError, RuntimeError) as error:
        _warn_once(
            f"Programs are compiled anew in each run: {error}. Write {VARIABLE}=FOLDER with "
            f"another folder, or {VARIABLE}={OFF}."
        )
        return None
    _switch_on(folder)
    return folder


def is_kept() -> bool:
    """Whether programs that are compiled are kept on disk."""
    return bool(_setting("enable_compilation_cache") and _setting("compilation_cache_dir"))


def _setting(name: str) -> Any:
    return getattr(jax.config, f"jax_{name}")


def _wanted_folder() -> str | None:
    """The folder of the environment variable, ``""`` for the default one, None for no cache."""
    value = os.path.expanduser(os.environ.get(VARIABLE, "").strip())
    if value.lower() == OFF:
        return None
    if value and not Path(value).is_absolute():
        raise ConfigurationError(
            f"Received {VARIABLE}={value!r}; expected {OFF!r} or the full path of a folder; write "
            f"{VARIABLE}={OFF} or {VARIABLE}={Path(value).absolute()}"
        )
    return value


def _prepare(wanted: str) -> Path:
    """Makes the folder, tries it out and tidies it.

    Raises:
        OSError: when it cannot be made or written, or is not safe to use.
        RuntimeError: when the user has no home.
    """
    folder = Path(wanted) if wanted else user_cache("compilation")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_shared(folder)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        _refuse_full(folder)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be used ({error})") from error
    with contextlib.suppress(OSError):  # another process may tidy it at the same time
        tidy(folder, time.time())
    return folder


def _refuse_shared(folder: Path) -> None:
    """An entry is machine code, which is run: nobody else may write here."""
    if os.name != "posix":
        return
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise PermissionError("other users can write there")


def _refuse_full(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        expected = f"expected at least {MIN_FREE_BYTES // 2**20}"
        raise OSError(f"its disk has {free // 2**20} MiB free; {expected}")


def _switch_on(folder: Path) -> None:
    # Each program that cannot be read or written would be a warning, and with `python -W error`
    # the end of the run.
    warnings.filterwarnings("ignore", _JAX_WARNINGS, UserWarning)
    if _setting("persistent_cache_min_compile_time_secs") == _JAX_MIN_COMPILE_TIME:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX decides once whether it has a cache, and may have compiled something already.
    compilation_cache.reset_cache()


def tidy(folder: Path, now: float) -> None:
    """Deletes damaged entries, and the least recently used ones of a full cache; once an hour.

    Args:
        folder: the cache.
        now: seconds since the epoch; what was written a minute before may still be in writing.
    """
    stamp = folder / _STAMP
    checked = stamp.stat().st_mtime if stamp.exists() else 0.0
    if now - checked < _CHECK_EVERY:
        return
    stamp.touch()
    os.utime(stamp, (now - _IN_WRITING, now - _IN_WRITING))
    entries = list(_entries(folder))
    damaged = {
        entry
        for entry in entries
        if checked <= entry.written < now - _IN_WRITING and not _is_whole(entry.path)
    }
    for entry in damaged | _surplus([entry for entry in entries if entry not in damaged]):
        entry.path.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[_Entry]:
    for item in os.scandir(folder):
        if _ENTRY.search(item.name):
            with contextlib.suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                # Most disks note a first use at once and later ones once a day; some note none.
                used = max(status.st_atime, status.st_mtime)
                yield _Entry(Path(item.path), status.st_size, status.st_mtime, used)


def _is_whole(path: Path) -> bool:
    """Whether an entry was written to its end: JAX would never replace one that was not."""
    data = path.read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":  # zstd, which JAX takes where Python has it
        return True
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True


def _surplus(entries: list[_Entry]) -> set[_Entry]:
    """What has to go for a full cache to be three quarters full."""
    total, count = sum(entry.size for entry in entries), len(entries)
    if total <= MAX_BYTES and count <= MAX_ENTRIES:
        return set()
    surplus: set[_Entry] = set()
    for entry in sorted(entries, key=lambda entry: entry.used):
        if total <= MAX_BYTES * 3 // 4 and count <= MAX_ENTRIES * 3 // 4:
            break
        surplus.add(entry)
        total, count = total - entry.size, count - 1
    return surplus


@functools.cache  # a process with many trainers says it once
def _warn_once(text: str) -> None:
    _log.warning("%s", text)
