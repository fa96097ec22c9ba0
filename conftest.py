"""How all tests and doctests run: strictly, offline, on two CPU devices, in a temporary folder.

What stands above the import of jax must be set before it. `JAX_PLATFORMS=cuda pytest -m gpu` runs
the tests that need an accelerator.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    two_devices = "--xla_force_host_platform_device_count=2"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {two_devices}".strip()
os.environ.update(
    BOLTAX_ALLOCATOR="system",  # processes that compile thousands of programs give memory back
    MPLBACKEND="Agg",
    MLFLOW_DISABLE_TELEMETRY="true",
    TF_CPP_MIN_LOG_LEVEL="2",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The tests build the same few small models over and over: all processes share what is compiled.
    cache = tempfile.mkdtemp(prefix="boltax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ.update(
        JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
    )
if "PYTHONPATH" in os.environ:  # tests start processes in other folders
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths)

import gc
import importlib.metadata
import ipaddress
import itertools
import socket
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import compilation_cache  # what it reads has no public name

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", "ip6-localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse_other_hosts() -> None:
    """Makes this process see what a machine without network sees: no test depends on one."""
    connect, connect_ex, getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def check(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"a test connected to {address}; tests use this machine only")

    def local_connect(self: socket.socket, address: Any) -> None:
        check(self, address)
        return connect(self, address)

    def local_connect_ex(self: socket.socket, address: Any) -> int:
        check(self, address)
        return connect_ex(self, address)

    def local_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            raise socket.gaierror(f"a test looked up {host!r}; tests use this machine only")
        return getaddrinfo(host, *args, **kwargs)

    socket.socket.connect = local_connect
    socket.socket.connect_ex = local_connect_ex
    socket.getaddrinfo = local_getaddrinfo


_refuse_other_hosts()


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder of its own: none leaves files in the source tree."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_finish() -> None:
    """What is imported stays: the collector looks at it no more (a twelfth of the time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


_executables: dict[tuple[Any, ...], Any] = {}


def _share_executables() -> None:
    """Reads each program out of the folder of compiled ones once in a process.

    The tests train the same few small models again and again, and to read what is compiled takes
    a fifth of a trainer's time. Folders that tests make for themselves are read as ever.
    """
    folder, read = jax.config.jax_compilation_cache_dir, compilation_cache.get_executable_and_time

    def read_once(key: str, options: Any, backend: Any, devices: Any, *callbacks: Any) -> Any:
        if any(callbacks) or jax.config.jax_compilation_cache_dir != folder:
            return read(key, options, backend, devices, *callbacks)
        known = (key, backend, *(device.id for device in devices))
        if known not in _executables:
            if (found := read(key, options, backend, devices))[0] is None:
                return found
            _executables[known] = found
        return _executables[known]

    compilation_cache.get_executable_and_time = read_once


_share_executables()
_tests = itertools.count(1)


@pytest.fixture
def forget_executables() -> Any:
    """Has this process hold no programs but those that somebody else holds, too."""
    return _executables.clear


def pytest_runtest_teardown() -> None:
    """Now and then gives up what JAX keeps compiled, before a process has too many mappings.

    Linux allows some 65,000; each small operation of a test keeps a few of them for good.
    """
    if next(_tests) % 200 == 0:
        _executables.clear()
        jax.clear_caches()


def pytest_report_header() -> list[str]:
    """The versions that a result depends on, and which optional packages take part."""
    core = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    optional = ("torch", "tensorflow-cpu", "tensorflow", "lightning", "torchdata", "grain")
    optional += ("wandb", "mlflow", "optuna", "clu", "google-metrax")
    return [f"core: {_versions(core)}", f"optional: {_versions(optional) or 'none'}"]


def _versions(names: tuple[str, ...]) -> str:
    found = {
        dist.name.replace("_", "-"): dist.version for dist in importlib.metadata.distributions()
    }
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` run where there is an accelerator only."""
    needing = [item for item in items if "gpu" in item.keywords]
    if needing and jax.default_backend() == "cpu":
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))
