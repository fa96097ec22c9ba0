"""What is freed after a step stays with the process, unless someone has chosen otherwise."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import boltax
from boltax._process import _allocator
from boltax._process._allocator import LARGE, Outcome, keep_memory, late_hint

needs_glibc = pytest.mark.skipif(not _allocator._is_glibc(), reason="needs Linux with glibc")

# The temporaries are larger than the 64 MiB up to which glibc keeps memory by itself in an arena of
# a thread. Single steps let the heap grow to its final size; the median does not see them.
FAULTS_OF_A_STEP = """
import resource, statistics
from boltax._process._allocator import LARGE, keep_memory
outcome = keep_memory(lambda: LARGE).name
import jax, jax.numpy as jnp

@jax.jit
def step(weights, inputs):
    def loss(weights):
        hidden = inputs
        for weight in weights:
            hidden = jnp.tanh(hidden @ weight)
        return (hidden**2).mean()
    return [weight - gradient for weight, gradient in zip(weights, jax.grad(loss)(weights))]

weights, inputs, faults = [jnp.eye(128)] * 8, jnp.ones((16384, 128)), []
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    weights = jax.block_until_ready(step(weights, inputs))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps([outcome, statistics.median(faults[7:])]))
"""

LIBC = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc.argtypes = [ctypes.c_size_t]
"""

FAULTS_OF_SMALL_PIECES = (
    LIBC
    + """
import resource
from boltax._process._allocator import keep_memory
outcome = keep_memory(lambda: 0).name

def use():
    blocks = [libc.malloc(2**22) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 2**22)
    for block in blocks:
        libc.free(block)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(json.dumps([outcome, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""
)

FLAGS_OF_THE_HEAP = (
    LIBC
    + """
import re
from boltax._process._allocator import LARGE, give_back, keep_memory

def is_huge():
    address = libc.malloc(2**26) + 2**24
    for line in open("/proc/self/smaps"):
        if mapping := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(number, 16) for number in mapping.groups())
        elif line.startswith("VmFlags:") and begin <= address < end:
            return "hg" in line.split()

before, outcome, kept = is_huge(), keep_memory(lambda: LARGE).name, is_huge()
give_back()
print(json.dumps([before, outcome, kept, is_huge()]))
"""
)

THREADS_OF_OTHERS = """
import threading
import numpy as np
from boltax._process import _allocator

np.ones((512, 512)) @ np.ones((512, 512))
threading.Thread(target=threading.Event().wait, daemon=True).start()
early = _allocator._has_cpu_client()
import jax
jax.devices()
print(json.dumps([early, _allocator._has_cpu_client()]))
"""

FIRST_TRAINER = """
import flax.linen as nn
import numpy as np
import boltax as bx
from flax import nnx
from boltax._process._allocator import keep_memory

class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(64)(nn.relu(nn.Dense(256)(x)))

class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.first, self.second = nnx.Linear(32, 256, rngs=rngs), nnx.Linear(256, 64, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))

class Trainer(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return (model(batch) ** 2).mean()

model = dict(linen=Linen, nnx=Nnx)["{kind}"]
folder = dict(log_dir="{folder}", logger_type="none")
example = np.zeros(({batch}, 32), np.float32)
Trainer(model, exmp_input=example, logger_params=folder, enable_progress_bar=False)
print(json.dumps(keep_memory().name))
"""

TOO_LATE = """
import jax
jax.numpy.ones(3)
from boltax._process._allocator import LARGE, keep_memory, late_hint
print(json.dumps([keep_memory(lambda: LARGE).name, late_hint(lambda: LARGE)]))
"""

FREED_IN_A_THREAD = (
    LIBC
    + """
import pathlib, threading
from boltax._process._allocator import LARGE, give_back, keep_memory

def resident():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

def compile_something():
    blocks = [libc.malloc(2000) for _ in range(60_000)]
    for block in blocks:
        ctypes.memset(block, 1, 2000)
    for block in blocks[:-1]:  # the last one is the result, behind all else
        libc.free(block)

keep_memory(lambda: {count})
thread = threading.Thread(target=compile_something)
thread.start()
thread.join()
before = resident()
give_back()
print(json.dumps(before - resident()))
"""
)

SMALL_HOLES = (
    LIBC
    + """
import resource
from boltax._process._allocator import LARGE, give_back, keep_memory

def take(number):
    blocks = [libc.malloc(100_000) for _ in range(number)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    return blocks

keep_memory(lambda: LARGE)
for block in take(400)[::2]:
    libc.free(block)
give_back()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take(200)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""
)


def output(program: str, **environment: str) -> list:
    """What a fresh process prints as JSON, with an allocator that nobody has tuned."""
    tuned = (*_allocator._TUNING, _allocator.VARIABLE, "GLIBC_TUNABLES", "LD_PRELOAD", "XLA_FLAGS")
    variables = {name: value for name, value in os.environ.items() if name not in tuned}
    path = [str(Path(boltax.__file__).parents[1]), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{program}"],
        env={**variables, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A Linux process at its start, with nothing but jax installed, and what glibc is told."""
    calls: list[str] = []
    for name in (*_allocator._TUNING, _allocator.VARIABLE, "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "PJRT_NAMES_AND_LIBRARY_PATHS"):
        monkeypatch.delenv(name, raising=False)
    no_settings = SimpleNamespace(config=SimpleNamespace(jax_platforms=None))
    monkeypatch.setitem(sys.modules, "jax", no_settings)
    for name in ("jax_plugins", "libtpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(_allocator, "_kept", threading.Event())
    monkeypatch.setattr(_allocator, "_has_cpu_client", lambda: False)
    names = {_allocator._ONE_HEAP: "one heap", _allocator._OWN_HEAPS: "own heaps"}
    monkeypatch.setattr(_allocator, "_tell_glibc", lambda told: calls.append(names[told]) or True)
    monkeypatch.setattr(_allocator, "_ask_for_huge_pages", lambda: calls.append("huge pages"))
    _allocator._warn_of.cache_clear()
    return calls


@needs_glibc
@pytest.mark.parametrize(
    "program, outcome", [(FAULTS_OF_A_STEP, "KEPT"), (FAULTS_OF_SMALL_PIECES, "SMALL")]
)
def test_what_is_used_again_is_not_faulted_in_again(program: str, outcome: str) -> None:
    told, kept = output(program)
    assert told == outcome
    switched_off, returned = output(program, BOLTAX_ALLOCATOR="system")
    assert switched_off == "OFF"
    assert returned > 2000
    assert kept < returned / 10


@needs_glibc
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel has no huge pages"
)
def test_huge_pages_are_asked_for_and_still_after_memory_was_given_back() -> None:
    assert output(FLAGS_OF_THE_HEAP) == [False, "KEPT", True, True]
    assert output(FLAGS_OF_THE_HEAP, BOLTAX_ALLOCATOR="system") == [False, "OFF", False, False]


@needs_glibc
def test_what_a_thread_has_freed_is_given_back_where_memory_is_kept() -> None:
    assert output(FREED_IN_A_THREAD.format(count="LARGE")) > 80  # MB, of 120
    assert output(FREED_IN_A_THREAD.format(count="0")) < 20


@needs_glibc
def test_small_holes_stay_as_they_are_when_memory_is_given_back() -> None:
    assert output(SMALL_HOLES) < 400  # of 200 pieces with 25 pages each


@needs_glibc
def test_only_the_threads_of_jax_count_as_its_backend() -> None:
    assert output(THREADS_OF_OTHERS) == [False, True]


@needs_glibc
def test_a_program_that_computed_first_is_told_what_to_write() -> None:
    outcome, hint = output(TOO_LATE)
    assert outcome == "LATE"
    assert "make the trainer before the first JAX computation" in hint
    assert "\n" not in hint
    assert output(TOO_LATE, BOLTAX_ALLOCATOR="system") == ["OFF", None]


def test_glibc_is_told_once(told: list[str]) -> None:
    assert keep_memory(lambda: LARGE) is keep_memory(lambda: LARGE) is Outcome.KEPT
    assert told == ["one heap", "huge pages"]


def test_memory_kept_early_is_no_reason_for_a_hint_later(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_memory(lambda: LARGE)
    monkeypatch.setattr(_allocator, "_has_cpu_client", lambda: True)
    assert late_hint(lambda: LARGE) is None
    assert keep_memory(lambda: LARGE) is Outcome.KEPT


def test_memory_is_kept_for_large_models_only_unless_it_is_asked_for(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keep_memory() is Outcome.SMALL
    assert not told
    assert keep_memory(lambda: LARGE - 1) is Outcome.SMALL
    assert told == ["own heaps"]
    monkeypatch.setenv("BOLTAX_ALLOCATOR", "keep")
    assert keep_memory() is Outcome.KEPT
    assert told == ["own heaps", "one heap", "huge pages"]


def test_where_it_is_too_late_threads_keep_what_they_can(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_allocator, "_has_cpu_client", lambda: True)
    assert keep_memory(lambda: LARGE) is Outcome.LATE
    assert told == ["own heaps"]


@needs_glibc
@pytest.mark.parametrize("kind", ["linen", "nnx"])
@pytest.mark.parametrize("batch, outcome", [(8, "SMALL"), (16384, "KEPT")])
def test_the_first_trainer_of_a_process_decides_by_its_model(
    tmp_path: Path, kind: str, batch: int, outcome: str
) -> None:
    assert output(FIRST_TRAINER.format(kind=kind, batch=batch, folder=str(tmp_path))) == outcome


@pytest.mark.parametrize("value", ["system", " System "])
def test_the_environment_variable_switches_it_off(
    told: list[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("BOLTAX_ALLOCATOR", value)
    assert keep_memory(lambda: LARGE) is Outcome.OFF
    assert late_hint(lambda: LARGE) is None
    assert not told


def test_an_unknown_value_warns_once_and_changes_nothing(
    told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BOLTAX_ALLOCATOR", "sytem")
    assert keep_memory(lambda: LARGE) is keep_memory(lambda: LARGE) is Outcome.OFF
    assert not told
    assert len(caplog.messages) == 1
    assert "BOLTAX_ALLOCATOR 'sytem'" in caplog.text
    assert "Did you mean 'system'?" in caplog.text


@pytest.mark.parametrize(
    "name, value",
    [
        ("MALLOC_TRIM_THRESHOLD_", "0"),
        ("MALLOC_ARENA_MAX", "2"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        ("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4"),
    ],
)
def test_an_allocator_that_the_user_tuned_is_left_alone(
    told: list[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert keep_memory(lambda: LARGE) is Outcome.TUNED
    assert not told


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(
    told: list[str], monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delattr(os, "confstr")
    assert keep_memory(lambda: LARGE) is Outcome.UNSUPPORTED
    assert not told


@pytest.mark.parametrize("error", [ValueError("unrecognized name"), OSError(22, "Invalid"), None])
def test_musl_is_left_alone(
    told: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def confstr(name: str) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "confstr", confstr)
    assert keep_memory(lambda: LARGE) is Outcome.UNSUPPORTED
    assert not told


def test_an_allocator_that_refuses_is_not_kept(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_allocator, "_tell_glibc", lambda _: False)
    assert keep_memory(lambda: LARGE) is Outcome.UNSUPPORTED


def install_by_entry_point(folder: Path) -> None:
    metadata = folder / "jax_fast-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[jax_plugins]\nfast = jax_fast\n")


def install_by_namespace(folder: Path) -> None:
    (folder / "jax_plugins" / "fast").mkdir(parents=True)


def install_for_tpu(folder: Path) -> None:
    (folder / "libtpu.py").touch()


@pytest.mark.parametrize("install", [install_by_entry_point, install_by_namespace, install_for_tpu])
def test_where_an_accelerator_may_be_the_host_is_left_alone(
    told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install
) -> None:
    install(tmp_path)
    assert keep_memory(lambda: LARGE) is Outcome.ACCELERATOR
    assert late_hint(lambda: LARGE) is None
    assert not told
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert keep_memory(lambda: LARGE) is Outcome.KEPT


@pytest.mark.parametrize(
    "platforms, outcome",
    [
        ("cpu", Outcome.KEPT),
        ("cpu,cuda", Outcome.KEPT),
        ("cuda,cpu", Outcome.ACCELERATOR),
        ("tpu", Outcome.ACCELERATOR),
    ],
)
def test_the_first_platform_that_jax_is_asked_for_decides(
    told: list[str], platforms: str, outcome: Outcome
) -> None:
    sys.modules["jax"].config.jax_platforms = platforms
    assert keep_memory(lambda: LARGE) is outcome
