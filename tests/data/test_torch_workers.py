"""How workers start: never by forking this process, unless the user says so."""

import io
import logging
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from boltax.data import _torch_workers
from boltax.data._source import as_source
from boltax.data._torch_workers import prepare_workers, safe_start_method
from boltax.errors import DataError

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402


def start_method(loader):
    context = loader.multiprocessing_context
    return context and context.get_start_method()


@pytest.fixture
def forking(monkeypatch):
    """The default of Linux up to Python 3.13, wherever the test runs."""
    monkeypatch.setattr(_torch_workers, "_default_start_method", lambda: "fork")


def test_forking_loader_gets_a_safe_context_and_a_line_in_the_log(forking, caplog):
    loader = DataLoader([1, 2], num_workers=1)
    with caplog.at_level(logging.INFO, logger="boltax"):
        prepare_workers(loader, "train_loader")
        prepare_workers(loader, "train_loader")
    assert start_method(loader) == safe_start_method() != "fork"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "may hang" in caplog.text


def test_loader_without_workers_is_left_alone(forking):
    loader = DataLoader([lambda: 0])
    as_source(loader)
    assert start_method(loader) is None


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_context_of_the_user_is_respected(method, caplog):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {method}")
    loader = DataLoader([1, 2], num_workers=1, multiprocessing_context=method)
    with caplog.at_level(logging.INFO, logger="boltax"):
        prepare_workers(loader, "train_loader")
    assert start_method(loader) == method
    assert [r.levelname for r in caplog.records] == (["WARNING"] if method == "fork" else [])


def test_asking_for_the_default_does_not_fix_it():
    chosen = multiprocessing.get_start_method(allow_none=True)
    assert _torch_workers._default_start_method() in multiprocessing.get_all_start_methods()
    assert multiprocessing.get_start_method(allow_none=True) == chosen


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dataset": [lambda: 0]}, r"dataset \(list\)"),
        ({"dataset": [threading.Lock()]}, r"dataset \(list\)"),
        ({"dataset": [io.StringIO(), open]}, None),
        ({"collate_fn": lambda batch: batch}, r"collate_fn \(.*<lambda>\)"),
        ({"worker_init_fn": lambda index: None}, r"worker_init_fn \(.*<lambda>\)"),
    ],
)
def test_what_cannot_be_pickled_is_named(forking, options, part):
    loader = DataLoader(**{"dataset": [1, 2], "num_workers": 2, **options})
    if part is None:
        prepare_workers(loader, "train_loader")
        return
    message = rf"num_workers=2, whose {part} cannot be sent to a worker: .*top level.*num_workers=0"
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            prepare_workers(loader, "train_loader")


def test_probe_copies_no_data():
    written = []

    class Counting(_torch_workers._Nowhere):
        def write(self, data):
            written.append(len(data))
            return len(data)

    probe = _torch_workers._Probe.__new__(_torch_workers._Probe)
    pickle.Pickler.__init__(
        probe, Counting(), pickle.HIGHEST_PROTOCOL, buffer_callback=_torch_workers._leave_out
    )
    probe.dump({"array": np.zeros(10**7), "tensor": torch.zeros(10**7)})
    assert sum(written) < 10_000


def test_locks_of_multiprocessing_are_not_in_the_way(forking):
    lock = multiprocessing.get_context("spawn").Lock()
    prepare_workers(DataLoader([lock, 2], num_workers=1), "train_loader")


def test_workers_that_run_already_are_left_alone(forking):
    loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
    prepare_workers(loader, "train_loader")
    list(loader)
    running = loader._iterator
    _torch_workers._prepared.discard(loader)
    as_source(loader)
    list(loader)
    assert loader._iterator is running


TRAINER = """
    import multiprocessing, sys, time
    import numpy as np
    from torch.utils.data import DataLoader
    from boltax.data._source import as_source

    if __name__ == "__main__":
        method = None if sys.argv[1] == "default" else sys.argv[1]
        loader = DataLoader(
            np.zeros((10_000, 2)), batch_size=2, num_workers=2, multiprocessing_context=method
        )
        stream = as_source(loader).epoch(1)
        next(stream)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


def has_ended(pid):
    """Whether a process is gone, or only its exit status is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("method", ["default", "fork", "spawn"])
def test_workers_leave_when_the_process_that_trains_is_killed(tmp_path, method):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAINER), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        workers = trainer.stdout.readline().split()
        assert len(workers) == 2
        assert not any(map(has_ended, workers))
        trainer.kill()
        began = time.monotonic()
        while not all(map(has_ended, workers)):
            assert time.monotonic() - began < 20, "workers are still there"
            time.sleep(0.1)
        # nothing that it has started holds the output, a fork server for instance
        assert trainer.stdout.read() == ""


def test_own_worker_init_fn_is_still_called():
    loader = DataLoader([0, 0], num_workers=1, worker_init_fn=note_worker)
    loader.collate_fn = read_note
    assert [int(batch[0]) for batch, _ in as_source(loader).epoch(1)] == [7, 7]


def note_worker(worker_id):
    torch.boltax_note = 7 + worker_id


def read_note(examples):
    return np.array([torch.boltax_note])


def test_a_process_is_watched_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(_torch_workers, "LOOK_EVERY", 0.01)
    monkeypatch.delattr(_torch_workers.os, "pidfd_open", raising=False)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = threading.Thread(target=_torch_workers._wait_for_the_end_of, args=(process.pid,))
    watch.start()
    time.sleep(0.1)
    assert watch.is_alive()
    process.communicate(b"\n")
    watch.join(timeout=20)
    assert not watch.is_alive()
