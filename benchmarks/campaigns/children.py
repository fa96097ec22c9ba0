"""Processes that a campaign may kill, and that cost no imports.

The parent has imported everything and started no JAX backend, whose threads a fork would lose.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

LONGEST, HUNG = 120.0, 999
"""Seconds that a child may take by default, and the status of one that took longer."""


def use_compilation_cache() -> None:
    """Has all children share what is compiled; call it before anything starts JAX's backend."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not cache:
        cache = tempfile.mkdtemp(prefix="boltax-cache-")
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_platforms", "cpu")


def in_child(
    work: Callable[[], Any],
    *,
    signal_after: tuple[float, int] | None = None,
    longest: float = LONGEST,
    log: Path | None = None,
) -> tuple[int, float]:
    """Runs something in a forked process, and may send that a signal.

    Args:
        work: what to run.
        signal_after: after how many seconds to send which signal.
        longest: the seconds that it may take.
        log: the file for its output and errors; by default they are those of the parent.

    Returns:
        The exit status, as `os.waitstatus_to_exitcode` gives it, and the seconds it took. A child
        that does not end is killed, with the status `HUNG`.
    """
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(work, log)
    signals = [(longest, signal.SIGKILL), *([signal_after] if signal_after else [])]
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if pid:
            return (HUNG if not signals else os.waitstatus_to_exitcode(status)), seconds
        if signals and seconds > signals[-1][0]:
            os.kill(child, signals.pop()[1])
        time.sleep(0.002)


def _be_child(work: Callable[[], Any], log: Path | None) -> None:
    """Runs the work and ends the process, as a script that is nothing else would end."""
    status = 0
    if log is not None:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
