import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import boltax
from boltax.checkpoint import _lock
from boltax.checkpoint._lock import RunLock, is_held
from boltax.errors import RunDirectoryError

HOLD = (
    "import sys\nfrom boltax.checkpoint._lock import RunLock\n"
    "with RunLock(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
)
TRY = (
    "import sys\nfrom boltax.checkpoint._lock import RunLock, is_held\n"
    "print(is_held(sys.argv[1]))\n"
    "with RunLock(sys.argv[1]):\n    print('held')"
)


def start(program, *arguments):
    path = [str(Path(boltax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the temporary folder."""
    with start(HOLD, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_who_holds_it(tmp_path, holder):
    assert is_held(tmp_path)
    with pytest.raises(RunDirectoryError, match=rf"process {holder.pid} on .* since 20.*kill") as e:
        RunLock(tmp_path).__enter__()
    assert "logger_params={'log_dir': ...}" in str(e.value)


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_another_process_sees_what_this_one_holds(tmp_path):
    with RunLock(tmp_path):
        assert is_held(tmp_path)  # must not give it up
        output, error = start(TRY, tmp_path).communicate()
    assert output == "True\n"
    assert f"process {os.getpid()} on" in error
    assert start(TRY, tmp_path).communicate()[0] == "False\nheld\n"


def test_the_same_process_holds_it_once(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with RunLock(tmp_path):
        with pytest.raises(RunDirectoryError, match=rf"process {os.getpid()} on"):
            RunLock(tmp_path / "link").__enter__()
        assert is_held(tmp_path)
        with RunLock(tmp_path / "other"):
            assert is_held(tmp_path / "other")
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert is_held(tmp_path / "link")


def test_a_failed_run_gives_it_up(tmp_path):
    with pytest.raises(KeyError, match="x"), RunLock(tmp_path):
        raise KeyError("x")
    assert not is_held(tmp_path)


def _forked(folder, queue):
    try:
        queue.put(is_held(folder))
        RunLock(folder).__enter__()
        queue.put("taken")
    except RunDirectoryError:
        queue.put("refused")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_a_forked_worker_neither_holds_it_nor_gives_it_up(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with RunLock(tmp_path):
        worker = context.Process(target=_forked, args=(tmp_path, queue))
        worker.start()
        worker.join()
        assert [queue.get(timeout=60) for _ in range(2)] == [True, "refused"]
        assert "True" in start(TRY, tmp_path).communicate()[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_lock.fcntl, "lockf", refuse)
    with RunLock(tmp_path):
        assert "cannot be locked" in caplog.text


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="while writing"):
        RunLock(tmp_path / "file").__enter__()
    (tmp_path / "x").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "x")
    with pytest.raises(RunDirectoryError, match="while writing"):
        RunLock(tmp_path).__enter__()
    assert not is_held(tmp_path)
