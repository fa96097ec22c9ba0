"""Tells the C library to keep the memory of a training step for the next one, on a CPU.

XLA's CPU backend asks for the temporaries of a program at each call and gives them back after it.
glibc returns so large a piece to the system, and the next step faults every page in again, which
is a sixth to a quarter of the time of a step with large temporaries. Settings of `mallopt` end
that: one arena for all threads, no separate mappings, no trimming, growth in large pieces. A thread
chooses its arena when it first allocates, so they only help before the threads of JAX's CPU backend
have started. All large values then lie in one heap, for which huge pages are asked: a step faults
in less, and finds its values sooner, which is worth as much again or more.

The price is memory (what a process has used once it keeps, until the next compilation is over) and
time: small pieces take longer to find in the one arena, which costs a small model more than it
wins, and has a compiler take up to 1.6 times as long. So it is done for models whose forward pass
makes large values; `BOLTAX_ALLOCATOR=keep` has it done for all, ``system`` for none. For other
models, and where it is too late, each thread keeps pieces of up to 32 MiB in an arena of its own.

Nothing else of boltax knows this file: it is called at the moments of `_moments`, once
`boltax/__init__.py` has called `install`. Starts no backend, imports no jax, changes no setting of
JAX and no environment variable.
"""

import ctypes
import enum
import functools
import importlib.util
import logging
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from boltax._process._moments import after_compiling, before_first_model
from boltax.errors import unknown_name

VARIABLE = "BOLTAX_ALLOCATOR"
AUTO, KEEP, SYSTEM = "auto", "keep", "system"
LARGE = 2**25
"""Bytes of the values of a model's forward pass from which on memory is kept."""
LATE_HINT = (
    "JAX's CPU backend had started before this trainer was made, so the memory of each step goes "
    "back to the system, which can cost a fifth of the time: make the trainer before the first JAX "
    f"computation, or set {VARIABLE}={KEEP} ({VARIABLE}={SYSTEM} hides this hint)."
)

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_NEVER_TRIM = (
    (_M_TRIM_THRESHOLD, -1),
    (_M_TOP_PAD, 2**27),  # the heap grows in large pieces, of which only what is used is memory
)
_ONE_HEAP = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), *_NEVER_TRIM)
_OWN_HEAPS = ((_M_MMAP_THRESHOLD, 2**25), *_NEVER_TRIM)  # the most that glibc takes
_KEPT_AT_TOP = 2**26
"""Bytes of the heap that stay at its top: what is asked for next comes from there."""
_MOST_HUGE, _LEAST_HUGE = 2**32, 2**28
"""Bytes at the top of the heap for which huge pages are asked: addresses, which become memory when
they are used. Fewer where the system does not grant the most, and none below the least."""
_HUGE_PAGE = 2**21
_HOLES = tuple(2**exponent for exponent in range(28, 21, -1))
"""Bytes of the pieces in which free memory below the top is looked for."""
# What a user sets to tune or to replace the allocator: then it is theirs.
_TUNING = (
    "MALLOC_ARENA_MAX",
    "MALLOC_ARENA_TEST",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
)
_TASKS = Path("/proc/self/task")
_THREADS_OF_XLA = "tf_XLA"  # tf_XLAEigen in every version, with one core and with many

_log = logging.getLogger("boltax")
_kept = threading.Event()  # set once glibc has been told; a process is told once


class Outcome(enum.Enum):
    """What `keep_memory` did, or why it did nothing."""

    KEPT = "memory is kept from step to step"
    OFF = "switched off by the environment variable"
    TUNED = "the user has tuned or replaced the allocator"
    UNSUPPORTED = "not Linux with glibc"
    ACCELERATOR = "JAX uses an accelerator, or may find one"
    SMALL = "the values of the model are small, or not known"
    LATE = "the threads of JAX's CPU backend have started"


def install() -> None:
    """The one way in: without this call, in `boltax/__init__.py`, nothing here is ever used.

    Looks whether memory is to be kept already now, and again at the first model of the process;
    gives back what a compiler has used.
    """
    keep_memory()
    before_first_model.append(late_hint)
    after_compiling.append(give_back)


def keep_memory(count_values: Callable[[], int] | None = None) -> Outcome:
    """Makes glibc keep freed memory, where that speeds training up and nobody has chosen otherwise.

    To be called early, and as often as is useful: a later call sees what has changed since (the
    platform that JAX shall use), and tells what an earlier one has done.

    Args:
        count_values: gives the bytes of the values that a model's forward pass makes, where the
            rest does not decide yet; None while there is no model.

    Returns:
        What was done, or the first reason not to.
    """
    if _kept.is_set():
        return Outcome.KEPT
    reason = _reason_against(count_values)
    if count_values is not None and reason in (Outcome.SMALL, Outcome.LATE):
        _tell_glibc(_OWN_HEAPS)
    if reason is not None:
        return reason
    if not _tell_glibc(_ONE_HEAP):
        return Outcome.UNSUPPORTED
    _kept.set()
    _ask_for_huge_pages()
    return Outcome.KEPT


def late_hint(count_values: Callable[[], int]) -> str | None:
    """One line for the user whose model came too late for `keep_memory`, otherwise None."""
    return LATE_HINT if keep_memory(count_values) is Outcome.LATE else None


def give_back() -> None:
    """Gives kept memory that is free back to the system: what a compiler has used, for example.

    Whole huge pages only. `malloc_trim` gives back each free piece of 4 KiB, and what comes into
    its place later lies in pages of that size, which costs a step with large temporaries a tenth.
    Takes some milliseconds, in which other threads may wait for memory. What small models have is
    left where it is: they are faster with memory that is there already.
    """
    if not _kept.is_set():
        return
    libc = _libc()
    top, size = _take_top(libc)
    if top is None:
        return
    _advise(libc, top + _KEPT_AT_TOP, size - _KEPT_AT_TOP, mmap.MADV_DONTNEED)
    taken = [top]
    for hole in _HOLES:
        # The holes below the top are found by asking for them; what comes from behind it is new.
        while (piece := libc.malloc(hole)) is not None:
            taken.append(piece)
            if piece > top:
                break
            _advise(libc, piece, hole, mmap.MADV_DONTNEED)
    for piece in taken:
        libc.free(piece)


def _reason_against(count_values: Callable[[], int] | None) -> Outcome | None:
    """The cheap questions first: the last three read files, or trace a model."""
    setting = _setting()
    if setting == SYSTEM:
        return Outcome.OFF
    if setting == AUTO and count_values is None:
        return Outcome.SMALL
    if not _is_glibc():
        return Outcome.UNSUPPORTED
    if _is_tuned():
        return Outcome.TUNED
    if not _is_cpu_used():
        return Outcome.ACCELERATOR
    if setting == AUTO and count_values is not None and count_values() < LARGE:
        return Outcome.SMALL
    return Outcome.LATE if _has_cpu_client() else None


def _setting() -> str:
    value = os.environ.get(VARIABLE, "").strip().lower() or AUTO
    if value in (AUTO, KEEP, SYSTEM):
        return value
    _warn_of(value)
    return SYSTEM  # who writes something there rather wants a change from the default


@functools.cache  # once for each value
def _warn_of(value: str) -> None:
    # No exception: an import does not fail for the sake of speed.
    error = unknown_name(f"environment variable {VARIABLE}", value, (AUTO, KEEP, SYSTEM))
    _log.warning("%s The allocator stays as the system has it.", error)


def _is_glibc() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):  # musl does not know the name
        return False


def _is_tuned() -> bool:
    environment = os.environ
    return (
        any(name in environment for name in _TUNING)
        or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")
        or "malloc" in environment.get("LD_PRELOAD", "")
    )


def _is_cpu_used() -> bool:
    asked = _asked_platforms()
    if asked:
        return asked.partition(",")[0].strip().lower() == "cpu"
    return not _has_accelerator_plugin()


def _asked_platforms() -> str:
    """What the user has set, without importing jax: `cpu`, `cuda,cpu`, or nothing."""
    config = getattr(sys.modules.get("jax"), "config", None)
    names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
    values = (getattr(config, "jax_platforms", None), *(os.environ.get(name) for name in names))
    return next((value for value in values if value), "")


def _has_accelerator_plugin() -> bool:
    """Whether JAX would find more than its CPU: where it looks itself, and as cheaply as can be."""
    return (
        "PJRT_NAMES_AND_LIBRARY_PATHS" in os.environ
        or any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu"))
        or any(_declares_plugin(folder) for folder in sys.path)
    )


def _declares_plugin(folder: str) -> bool:
    """Whether a distribution in `folder` has an entry point for JAX.

    `importlib.metadata.entry_points` takes four times as long, as it parses all of them.
    """
    try:
        names = os.listdir(folder or ".")
    except OSError:  # a zip file, or nothing there
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                text = Path(folder, name, "entry_points.txt").read_bytes()
            except OSError:
                continue
            if b"[jax_plugins]" in text:
                return True
    return False


def _has_cpu_client() -> bool:
    """Whether the threads of JAX's CPU backend run.

    XLA names its threads; those of Python, numpy and torch have the name of the process.
    """
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        try:
            if (task / "comm").read_text().startswith(_THREADS_OF_XLA):
                return True
        except OSError:  # the thread has ended meanwhile
            continue
    return False


def _tell_glibc(settings: Sequence[tuple[int, int]]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # a program that is linked statically
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def _ask_for_huge_pages() -> None:
    """Lets the heap grow, and asks for huge pages there; freed at once, it is what comes next."""
    libc = _libc()
    top, size = _take_top(libc)
    if top is not None:
        _advise(libc, top, size, mmap.MADV_HUGEPAGE)  # a kernel without them says no
        libc.free(top)


def _take_top(libc: ctypes.CDLL) -> tuple[int | None, int]:
    """Allocates more than any hole in the heap has room for; None where the system refuses."""
    size = _MOST_HUGE
    while (top := libc.malloc(size)) is None and size > _LEAST_HUGE:
        size //= 2
    return top, size


def _advise(libc: ctypes.CDLL, begin: int, size: int, advice: int) -> None:
    """Tells the kernel of the huge pages that lie in a piece as a whole."""
    first = -(-begin // _HUGE_PAGE) * _HUGE_PAGE
    libc.madvise(first, max(0, (begin + size - first) // _HUGE_PAGE * _HUGE_PAGE), advice)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
