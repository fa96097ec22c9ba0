import asyncio
import logging
import resource
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from boltax.checkpoint._leaf import Leaf
from boltax.checkpoint._orbax import load_flat, save_flat
from boltax.errors import CheckpointError, RunDirectoryError

WEIGHTS = np.arange(300, dtype=np.float32)
LEAVES = {("params", "w"): Leaf((300,), np.dtype(np.float32))}


def test_importing_checkpoints_does_not_import_orbax():
    code = "import sys, boltax.checkpoint; print([m for m in sys.modules if m[:5] == 'orbax'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_printed_logged_or_left_running(tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO)
    level = logging.getLogger("absl").level
    threads = set(threading.enumerate())
    save_flat(tmp_path / "a", {("params", "w"): WEIGHTS})
    load_flat(tmp_path / "a", LEAVES, {})
    with pytest.raises(CheckpointError, match="KeyError: 'v'"):
        load_flat(tmp_path / "a", {("params", "v"): LEAVES["params", "w"]}, {})
    assert tuple(capfd.readouterr()) == ("", "")
    assert not [record for record in caplog.records if record.name == "absl"]
    assert logging.getLogger("absl").level == level
    started = set(threading.enumerate()) - threads
    for thread in started:  # one that has done its work may be about to end
        thread.join(timeout=10)
    assert not [thread.name for thread in started if thread.is_alive()]


def test_it_works_where_an_event_loop_runs_as_in_a_notebook(tmp_path):
    async def cell():
        save_flat(tmp_path / "a", {("params", "w"): WEIGHTS})
        return load_flat(tmp_path / "a", LEAVES, {})

    loaded = asyncio.run(cell())
    assert np.array_equal(loaded["params", "w"], WEIGHTS)


def test_it_works_where_implicit_transfers_are_forbidden(tmp_path):
    weights = jax.device_put(WEIGHTS)
    with jax.transfer_guard("disallow"):
        save_flat(tmp_path / "a", {("params", "w"): weights})
        loaded = load_flat(tmp_path / "a", LEAVES, {})
    assert np.array_equal(loaded["params", "w"], WEIGHTS)


def test_another_program_can_read_the_arrays_with_orbax_alone(tmp_path):
    import orbax.checkpoint as ocp

    save_flat(tmp_path / "a", {("params", "Dense_0", "kernel"): WEIGHTS})
    with ocp.PyTreeCheckpointer() as checkpointer:
        loaded = checkpointer.restore(tmp_path / "a")
    assert np.array_equal(loaded["params"]["Dense_0"]["kernel"], WEIGHTS)


def test_a_folder_without_arrays_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="there are no arrays in it"):
        load_flat(tmp_path, LEAVES, {})


def test_a_full_disk_is_an_error_of_the_run_directory(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunDirectoryError, match="Free some space"):
            save_flat(tmp_path / "a", {("w",): np.ones((500, 500), np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "a").exists()


def test_reads_that_answer_after_a_failure_print_nothing(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_value)
    )
    tmp_path.joinpath("arrays").mkdir()
    for _ in range(2):
        with pytest.raises(CheckpointError):
            load_flat(tmp_path / "arrays", {("a",): Leaf((2,), "float32")}, {})
    closed, other = RuntimeError("Event loop is closed"), RuntimeError("of something else")
    for error in (closed, other):
        sys.unraisablehook(SimpleNamespace(exc_value=error, object=None))
    sys.unraisablehook(SimpleNamespace(exc_value=closed, object="a callback of the user's"))
    assert shown == [other, closed]


def test_a_load_that_succeeds_leaves_what_python_prints_as_it_was(tmp_path):
    save_flat(tmp_path / "arrays", {("a",): np.ones(2, np.float32)})
    before = sys.unraisablehook
    load_flat(tmp_path / "arrays", {("a",): Leaf((2,), "float32")}, {})
    assert sys.unraisablehook is before
