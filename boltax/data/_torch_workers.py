"""Workers of PyTorch's `DataLoader` in a process that runs JAX.

JAX has threads, and a process forked from one with threads may wait for ever for a lock that one of
them held. So workers start by "forkserver" (or "spawn"), for which what they need is pickled; what
cannot be is named before anything starts.
"""

import logging
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import select
import sys
import threading
import time
import weakref
from types import FunctionType
from typing import Any

from boltax.data._arrays import is_a
from boltax.data._iterables import class_name
from boltax.errors import DataError

LOG = logging.getLogger("boltax")
SENT_TO_WORKERS = ("dataset", "collate_fn", "worker_init_fn")
LOOK_EVERY = 1.0
"""Seconds between two looks at whether a process is there, where the system does not tell."""
PRELOADED = ("boltax", "torch.utils.data", "torchvision")
_prepared: "weakref.WeakSet[Any]" = weakref.WeakSet()


def safe_start_method() -> str:
    """The start method that does not fork this process: "forkserver" where there is one."""
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"


def prepare_workers(loader: Any, name: str) -> None:
    """Makes the workers of a `DataLoader` start without forking this process, and end with it.

    Does nothing where there are no workers, or where they run already. A context that the user gave
    is respected, also "fork", with a warning in the log.

    Args:
        loader: the data loader; its ``multiprocessing_context`` and ``worker_init_fn`` are set.
        name: the loader, as messages name it.

    Raises:
        DataError: when something that the workers need cannot be pickled.
    """
    if loader.num_workers == 0 or loader in _prepared or _is_running(loader):
        return
    context = loader.multiprocessing_context
    method = context.get_start_method() if context is not None else _default_start_method()
    if method == "fork" and context is not None:
        _prepared.add(loader)
        loader.worker_init_fn = EndsWithParent(loader.worker_init_fn)
        LOG.warning(
            "%s forks its workers, as its multiprocessing_context says, from a process that runs "
            "JAX: that may hang. Without multiprocessing_context, boltax uses %r.",
            name,
            safe_start_method(),
        )
        return
    for part in SENT_TO_WORKERS:
        _check_can_be_sent(getattr(loader, part, None), part, loader, name)
    _prepared.add(loader)
    loader.worker_init_fn = EndsWithParent(loader.worker_init_fn)
    if method == "fork":
        loader.multiprocessing_context = safe_start_method()
        _speed_up_starts()
        LOG.info(
            "%s: workers start by %r, since forking a process that runs JAX may hang.",
            name,
            safe_start_method(),
        )


class EndsWithParent:
    """A ``worker_init_fn`` that has its worker leave when the process it works for is gone.

    One that is killed tells nobody, and PyTorch's workers look for the process that forked them:
    where they come from a fork server that is not the one that trains. They would stay for good,
    and with them the output of the job, for whose end a cluster waits.

    Args:
        function: the user's ``worker_init_fn``, or None.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, worker_id: int) -> None:
        """Begins to watch, then calls the user's function."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            threading.Thread(target=_leave_after, args=(parent.pid,), daemon=True).start()
        if self.function is not None:
            self.function(worker_id)


def _leave_after(pid: int | None) -> None:
    """Leaves this process when another one has ended."""
    if pid is not None:
        _wait_for_the_end_of(pid)
        os._exit(1)


def _wait_for_the_end_of(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # another system than Linux, or an old one
        while _is_alive(pid):
            time.sleep(LOOK_EVERY)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _speed_up_starts() -> None:
    """Has the fork server import what workers need, once, instead of each worker in each epoch.

    That takes starting them from seconds to 50 ms. It works before the first worker is started, and
    is safe: none of these starts a JAX backend when it is imported.
    """
    modules = [name for name in PRELOADED if name in sys.modules]
    multiprocessing.set_forkserver_preload(["__main__", *modules])


def _is_running(loader: Any) -> bool:
    return bool(loader.persistent_workers) and getattr(loader, "_iterator", None) is not None


def _default_start_method() -> str:
    """What a loader without a context uses; asking for it in the usual way would fix it."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or multiprocessing.get_all_start_methods()[0]


def _check_can_be_sent(value: Any, part: str, loader: Any, name: str) -> None:
    try:
        _Probe().dump(value)
    except RuntimeError as error:
        if "shared between processes through inheritance" not in str(error):  # locks, queues
            raise _cannot_be_sent(value, part, loader, name, error) from error
    except Exception as error:
        raise _cannot_be_sent(value, part, loader, name, error) from error


def _cannot_be_sent(value: Any, part: str, loader: Any, name: str, error: Exception) -> DataError:
    what = getattr(value, "__qualname__", None) or class_name(value)
    return DataError(
        f"Received {name} ({class_name(loader)}) with num_workers={loader.num_workers}, whose "
        f"{part} ({what}) cannot be sent to a worker: {error}. Expected one that can be pickled, "
        "since workers are not forked from a process that runs JAX (that may hang). Define its "
        "functions and classes at the top level of a .py file, without lambdas, and open files in "
        "the worker; or write num_workers=0."
    )


def _leave_out(buffer: Any) -> None:
    """Takes the contents of an array out of band, and drops them."""


class _Nowhere:
    """A file that forgets what is written to it."""

    def write(self, data: Any) -> int:
        return len(data)


class _Probe(multiprocessing.reduction.ForkingPickler):
    """Pickles into nothing, leaving out the contents of arrays and tensors."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), pickle.HIGHEST_PROTOCOL, True, _leave_out)

    def reducer_override(self, obj: Any) -> Any:
        if is_a(obj, "torch", "Tensor"):
            return int, ()  # sent as shared memory
        if isinstance(obj, type | FunctionType) and _is_of_notebook(obj):
            raise pickle.PicklingError(
                f"{obj.__qualname__} is defined in a notebook or interactive session, which "
                "workers cannot import"
            )
        return NotImplemented


def _is_of_notebook(obj: type | FunctionType) -> bool:
    main = sys.modules["__main__"]
    is_interactive = getattr(main, "__file__", None) is None and main.__spec__ is None
    return is_interactive and obj.__module__ == "__main__"
