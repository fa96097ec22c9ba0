"""A second run compiles nothing, and no trouble with the cache reaches the run."""

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import boltax
from boltax._process import _compilation_cache
from boltax._process._compilation_cache import enable_compilation_cache
from boltax.errors import ConfigurationError

TRAIN = """
import collections, json, sys
import jax, jax.numpy as jnp

before = jnp.ones(3) * 2  # compiled while JAX has no folder
from boltax._process._compilation_cache import enable_compilation_cache
folder = enable_compilation_cache()
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
{extra}

@jax.jit
def step(weights, inputs):
    def loss(weights):
        return (jnp.tanh(inputs @ weights) ** 2).mean()
    return weights - 0.1 * jax.grad(loss)(weights)

weights, inputs = jax.random.normal(jax.random.key(0), (2, 16, 16))
for _ in range(3):
    weights = step(weights, inputs)
digest = jax.device_get(weights).tobytes().hex()
requests = counts["compile_requests_use_cache"]
assert requests == counts["cache_hits"] + counts["cache_misses"], "small programs are cached, too"
print(json.dumps([str(folder), digest, counts["cache_hits"], counts["cache_misses"]]))
"""
FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, -1))  # longer files end there, with an error
"""


def start(home: Path, *, options: tuple[str, ...] = (), extra: str = "") -> subprocess.Popen:
    """A process with a cache folder of its own, in which nobody has set one for JAX."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name != _compilation_cache.VARIABLE and not name.startswith(("JAX_", "XLA_"))
    }
    path = [str(Path(boltax.__file__).parents[1]), variables.get("PYTHONPATH", "")]
    variables |= {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "JAX_PLATFORMS": "cpu",
        "HOME": str(home),
        "LOCALAPPDATA": str(home),
        "XDG_CACHE_HOME": str(home / "caches"),
    }
    return subprocess.Popen(
        [sys.executable, *options, "-c", TRAIN.format(extra=extra)],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen) -> tuple[Path, str, int, int]:
    """Folder, weights, programs read and programs compiled of a process that said nothing."""
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stderr == ""
    folder, digest, hits, misses = json.loads(stdout)
    return Path(folder), digest, hits, misses


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def set_age(folder: Path, seconds: float) -> None:
    """As if all in it had been written, and the folder checked, so long ago."""
    then = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (then, then))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple]:
    home = tmp_path_factory.mktemp("home")
    return home, result(start(home))


@pytest.fixture
def home(first_run: tuple[Path, tuple], tmp_path: Path) -> Path:
    """A copy of the first run's home, for a test to damage."""
    return Path(shutil.copytree(first_run[0], tmp_path / "copy"))


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """This process as one in which nobody has set a folder; its folder for caches."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    monkeypatch.delenv(_compilation_cache.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    _compilation_cache._warn_once.cache_clear()
    yield tmp_path / "caches"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_second_process_compiles_nothing(first_run: tuple[Path, tuple]) -> None:
    home, (_, digest, hits, misses) = first_run
    assert (hits, misses > 0) == (0, True)
    _, digest_again, hits_again, misses_again = result(start(home))
    assert (hits_again, misses_again) == (misses, 0)
    assert digest_again == digest


def test_two_processes_at_once_share_a_folder(
    first_run: tuple[Path, tuple], tmp_path: Path
) -> None:
    _, (_, digest, _, misses) = first_run
    both = [start(tmp_path), start(tmp_path)]
    folders, digests, _, _ = zip(*map(result, both), strict=True)
    assert set(digests) == {digest}
    assert len(set(folders)) == 1
    assert len(entries(folders[0])) == misses


def test_damaged_entries_are_compiled_anew(first_run: tuple[Path, tuple], home: Path) -> None:
    _, (folder, digest, _, misses) = first_run
    copy = home / folder.relative_to(first_run[0])
    kinds = [b"", b"garbage", b"\x28\xb5\x2f\xfd garbage of zstd"]
    for number, path in enumerate(entries(copy)):
        whole = path.read_bytes()
        path.write_bytes([whole[: len(whole) // 2], *kinds][number % 4])
    _, digest_again, hits, misses_again = result(start(home, options=("-W", "error")))
    assert digest_again == digest
    assert (hits, misses_again) == (0, misses)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit for files")
def test_a_disk_that_fills_up_ends_no_run_and_leaves_no_damage(
    first_run: tuple[Path, tuple], tmp_path: Path
) -> None:
    _, (_, digest, _, misses) = first_run
    limited = result(start(tmp_path, options=("-W", "error"), extra=FULL_DISK))
    assert limited[1] == digest
    cut_off = [path for path in entries(limited[0]) if path.stat().st_size == 1500]
    assert cut_off, "the limit was too wide for this test"
    set_age(limited[0], days(1))
    after = result(start(tmp_path))
    assert (after[2], after[3]) == (misses - len(cut_off), len(cut_off))
    assert after[1] == digest
    assert all(_compilation_cache._is_whole(path) for path in entries(after[0]))


def test_the_folder_is_that_of_the_users_caches(
    unset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert enable_compilation_cache() == unset / "boltax" / "compilation"
    assert jax.config.jax_compilation_cache_dir == str(unset / "boltax" / "compilation")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


@pytest.mark.parametrize(
    "platform, folder",
    [
        ("linux", ".cache/boltax/compilation"),
        ("darwin", "Library/Caches/boltax/compilation"),
        ("win32", "AppData/Local/boltax/compilation"),
    ],
)
def test_each_system_has_its_place_for_caches(
    unset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, folder: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert enable_compilation_cache() == tmp_path / folder


def test_the_environment_variable_names_a_folder(
    unset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOLTAX_COMPILATION_CACHE", str(tmp_path / "mine"))
    assert enable_compilation_cache() == tmp_path / "mine"
    assert not unset.exists()


@pytest.mark.parametrize("value", ["off", "OFF"])
def test_the_environment_variable_switches_it_off(
    unset: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("BOLTAX_COMPILATION_CACHE", value)
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert not unset.exists()


def test_a_misspelt_value_is_no_folder(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOLTAX_COMPILATION_CACHE", "of")
    with pytest.raises(ConfigurationError, match="'of'; expected 'off' or the full path"):
        enable_compilation_cache()


def test_a_folder_that_the_user_gave_jax_stays(unset: Path, tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of the user"))
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "of the user")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1


def test_a_cache_that_the_user_switched_off_stays_off(unset: Path) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert enable_compilation_cache() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_threshold_of_the_user_stays(unset: Path) -> None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 5.0)
    assert enable_compilation_cache() is not None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 5


def test_a_folder_that_cannot_be_made_is_one_warning(
    unset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unset.write_text("a file where a folder should be")
    assert enable_compilation_cache() is None
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert len(caplog.messages) == 1
    assert "compiled anew in each run" in caplog.text
    assert "BOLTAX_COMPILATION_CACHE=off" in caplog.text


def test_a_user_without_a_home_gets_a_warning(
    unset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert enable_compilation_cache() is None
    assert "Could not determine home directory" in caplog.text


def test_a_full_disk_is_not_used(
    unset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(unset.parent)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert enable_compilation_cache() is None
    assert "3 MiB free; expected at least 64" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_folder_that_others_can_write_is_not_used(
    unset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = unset / "boltax" / "compilation"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert enable_compilation_cache() is None
    assert "other users can write there" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_new_folder_is_for_the_user_alone(unset: Path) -> None:
    assert enable_compilation_cache().stat().st_mode & 0o077 == 0


def days(number: float) -> float:
    return number * 24 * 3600


def fill(folder: Path, number: int) -> list[Path]:
    """Whole entries of 1000 bytes or more, each used a day before the one that follows."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"jit_step-{index:064x}-cache" for index in range(number)]
    for index, path in enumerate(paths):
        path.write_bytes(zlib.compress(os.urandom(1000)))
        then = time.time() - days(number - index)
        os.utime(path, (then, then))
    return paths


def test_a_full_cache_loses_what_was_used_longest_ago(
    unset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compilation_cache, "MAX_BYTES", 8500)
    paths = fill(unset / "boltax" / "compilation", 10)
    os.utime(paths[0], (time.time(), paths[0].stat().st_mtime))  # old, and read today
    folder = enable_compilation_cache()
    assert entries(folder) == [paths[0], *paths[5:]]


def test_a_cache_of_too_many_entries_is_pruned(
    unset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compilation_cache, "MAX_ENTRIES", 8)
    paths = fill(unset / "boltax" / "compilation", 9)
    assert entries(enable_compilation_cache()) == paths[3:]


def test_files_of_others_stay(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compilation_cache, "MAX_BYTES", 0)
    folder = unset / "boltax" / "compilation"
    fill(folder, 2)
    (folder / "my-cache").write_text("mine")
    assert enable_compilation_cache() == folder
    assert entries(folder) == [folder / "my-cache"]


def test_an_entry_that_may_be_in_writing_stays(unset: Path) -> None:
    folder = unset / "boltax" / "compilation"
    old, new = fill(folder, 2)
    for path in (old, new):
        whole = path.read_bytes()
        path.write_bytes(whole[:500])
    os.utime(old, (time.time() - days(2),) * 2)
    enable_compilation_cache()
    assert entries(folder) == [new]
    set_age(folder, days(1))
    jax.config.update("jax_compilation_cache_dir", None)
    enable_compilation_cache()
    assert entries(folder) == [], "it was looked at again once it was old enough"


def test_a_folder_is_tidied_once_an_hour(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = enable_compilation_cache()
    paths = fill(folder, 3)
    monkeypatch.setattr(_compilation_cache, "MAX_BYTES", 0)
    jax.config.update("jax_compilation_cache_dir", None)
    enable_compilation_cache()
    assert entries(folder) == paths
