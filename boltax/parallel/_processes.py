"""The processes of a job: joined through `jax.distributed`, started by whatever the cluster has.

boltax starts no process and opens no socket. What launchers write into the environment is read to
join where JAX itself does not know them, and to refuse a job whose processes were never joined:
each of these would train alone, in the same folder.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import jax

from boltax.errors import ConfigurationError
from boltax.parallel._group import STALL_SECONDS, group

HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 20, 15
"""How long the others wait for a process that is gone. With the 100 and 300 of JAX a job waits for
minutes after one of its processes has failed."""
_SIZES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
"""Where launchers write the number of processes: ``srun``, ``mpirun``, MPICH, and those that start
processes with plain variables, such as torchrun or a Kubernetes job."""


def launched(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """How many processes a launcher says that it has started, and the variable that says so."""
    for name in _SIZES:
        text = environment.get(name, "")
        if text.isdecimal() and int(text) > 1:
            return name, int(text)
    return "", 1


def initialize(*, stall_seconds: float | None = STALL_SECONDS, **arguments: Any) -> None:
    """Joins the processes of a job: the first line of a script that a launcher starts many times.

    A thin door to `jax.distributed.initialize`, which finds out itself who the others are under
    SLURM (``srun``), Open MPI and on TPU pods. Under launchers that set ``RANK``, ``WORLD_SIZE``,
    ``MASTER_ADDR`` and ``MASTER_PORT`` these are read here. In a single process it does nothing, so
    it may stay in a script that is also run by hand.

    Args:
        stall_seconds: when a run comes no further for so long, since one process is stuck, say,
            all of them end; None for never.
        **arguments: those of `jax.distributed.initialize`, where they have to be given; among them
            `initialization_timeout`, the seconds for which a process waits for the others.

    Raises:
        ConfigurationError: when JAX does not find out who the others are.

    Example:
        >>> initialize()  # in a single process it does nothing
    """
    if jax.distributed.is_initialized():
        return
    name, number = launched()
    if number == 1 and not arguments:
        return
    # Signals are agreed on by boltax: the service of JAX would take them.
    jax.config.update("jax_enable_preemption_service", False)
    waiting: dict[str, Any] = {
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    try:
        jax.distributed.initialize(**{**waiting, **_plain(os.environ), **arguments})
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"Received {name or 'arguments'} for {number} processes, from which JAX cannot join "
            f"them ({error}); expected a launcher that it knows, or who the others are. Write "
            "boltax.parallel.initialize(coordinator_address='host:port', num_processes=..., "
            "process_id=...), first in the script."
        ) from error
    group().stall_seconds = stall_seconds


def join() -> None:
    """Joins the processes of a job, where a launcher has started this one among others.

    Done for the user when a trainer is to be spread over devices. Where JAX has begun to compute
    by then, it is too late, and `check_joined` says what to write.
    """
    if launched()[1] > 1 and not jax.distributed.is_initialized() and not _has_begun():
        initialize()


def _has_begun() -> bool:
    from jax._src import xla_bridge  # has no public name

    return bool(cast("Any", xla_bridge).backends_are_initialized())


def check_joined() -> None:
    """Refuses a process that was started as one of several, and knows nothing of the others.

    Raises:
        ConfigurationError: for one.
    """
    name, number = launched()
    if number > 1 and not jax.distributed.is_initialized():
        raise ConfigurationError(
            f"Received {name}={number}, but this process was not joined with the others: each "
            "would train alone, in the same folder. Expected boltax.parallel.initialize() as the "
            f"first line of the script. Write it; or unset {name} where each process is to train "
            "alone."
        )


def _plain(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments out of the variables that torchrun and its like set; nothing where one lacks."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(environment.get(name) for name in names):
        return {}
    rank, size, address, port = (environment[name] for name in names)
    return {
        "coordinator_address": f"{address}:{port}",
        "num_processes": int(size),
        "process_id": int(rank),
    }
