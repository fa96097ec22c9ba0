"""What launchers write into the environment, and what is made of it."""

import jax
import pytest

from boltax.errors import ConfigurationError
from boltax.parallel import _processes, initialize
from boltax.parallel._group import ALONE, group
from boltax.parallel._placement import placement_of
from boltax.parallel._processes import check_joined, launched

PLAIN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
LAUNCHERS = {
    "srun": ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8"}, ("SLURM_STEP_NUM_TASKS", 8)),
    "sbatch without srun": ({"SLURM_NTASKS": "8"}, ("", 1)),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "2"}, ("OMPI_COMM_WORLD_SIZE", 2)),
    "torchrun": (PLAIN, ("WORLD_SIZE", 4)),
    "one process": ({"WORLD_SIZE": "1"}, ("", 1)),
    "no number": ({"WORLD_SIZE": "many"}, ("", 1)),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_say_how_many_processes_there_are(launcher):
    environment, expected = LAUNCHERS[launcher]
    assert launched(environment) == expected


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    yield calls
    jax.config.update("jax_enable_preemption_service", True)


def test_a_single_process_joins_nobody(joined, monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    initialize()
    check_joined()
    assert joined == []
    assert group() is ALONE


def test_plain_variables_become_arguments(joined, monkeypatch):
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    initialize(local_device_ids=[0])
    assert joined == [
        {
            "heartbeat_timeout_seconds": _processes.HEARTBEAT_SECONDS,
            "shutdown_timeout_seconds": _processes.SHUTDOWN_SECONDS,
            "coordinator_address": "node1:1234",
            "num_processes": 4,
            "process_id": 1,
            "local_device_ids": [0],
        }
    ]
    assert not jax.config.jax_enable_preemption_service


def test_what_jax_cannot_join_is_told(monkeypatch):
    def fail(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigurationError, match="SLURM_STEP_NUM_TASKS for 2 processes, from whi"):
        initialize()


def test_processes_that_were_not_joined_do_not_train_alone(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="each would train alone, in the same folder"):
        placement_of(None)
