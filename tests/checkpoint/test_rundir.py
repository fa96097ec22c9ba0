import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boltax.checkpoint._rundir import (
    RunDirectory,
    create_run_directory,
    locate,
    open_run_directory,
)
from boltax.errors import ConfigurationError, RunDirectoryError


def test_the_first_run_is_version_0_and_the_next_one_above_the_highest(tmp_path):
    assert create_run_directory(tmp_path, "Mlp").path == tmp_path / "Mlp" / "version_0"
    (tmp_path / "Mlp" / "version_9").mkdir()
    (tmp_path / "Mlp" / "version_x").mkdir()
    assert create_run_directory(tmp_path, "Mlp").path.name == "version_10"
    (tmp_path / "Mlp" / "version_11").write_text("a file counts too")
    assert create_run_directory(tmp_path, "Mlp").path.name == "version_12"


def test_a_logger_name_makes_subfolders(tmp_path):
    assert create_run_directory(tmp_path, "Mlp", "a/b").path == tmp_path / "Mlp/a/b/version_0"
    assert create_run_directory(tmp_path, "Mlp", "").path == tmp_path / "Mlp/version_0"


def test_paths_are_absolute_and_know_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = create_run_directory("~/runs", "Mlp")
    assert run.path == tmp_path / "runs/Mlp/version_0"
    monkeypatch.chdir(tmp_path)
    assert create_run_directory("runs", "Mlp").path == tmp_path / "runs/Mlp/version_1"
    assert open_run_directory("runs/Mlp/version_0") == run


def test_the_places_of_a_run():
    run = RunDirectory("runs/x")
    names = [run.hparams, run.model_txt, run.history, run.metrics, run.best, run.resume]
    assert [str(name.relative_to("runs/x")) for name in names] == [
        "hparams.json",
        "model.txt",
        "history.csv",
        "metrics",
        "checkpoints/best",
        "checkpoints/resume",
    ]
    assert Path(run) == run.path == Path("runs/x")


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/../../x", "/etc", "", ".", "a\\b", "a\0b", "a\nb", None, 3]
)
def test_a_model_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="expected a name for a folder inside"):
        create_run_directory(tmp_path, name)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["..", "../x", "a/../x", "/etc", ".", "a\\b", "a\0b", 3])
def test_a_logger_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="'group/name' makes a subfolder"):
        create_run_directory(tmp_path, "Mlp", name)
    assert not os.listdir(tmp_path)


def test_a_model_name_is_one_folder(tmp_path):
    with pytest.raises(ConfigurationError, match="model name 'a/b'"):
        create_run_directory(tmp_path, "a/b")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none", "x" * 300, "a\0b"])
def test_a_base_folder_that_cannot_be_used_says_what_to_write(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match=r"logger_params=\{'base_log_dir': 'runs'\}"):
        create_run_directory(tmp_path / place, "Mlp")


def test_a_given_folder_is_opened(tmp_path):
    assert open_run_directory(tmp_path).path == tmp_path
    assert not os.listdir(tmp_path)


def test_a_given_folder_is_made_for_writing_only(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot read it: FileNotFoundError"):
        open_run_directory(tmp_path / "new")
    assert open_run_directory(tmp_path / "new", writable=True).path == tmp_path / "new"
    assert not os.listdir(tmp_path / "new")


def test_a_given_folder_that_cannot_be_written_is_refused(tmp_path):
    assert open_run_directory("/proc/self").path == Path("/proc/self")
    with pytest.raises(RunDirectoryError, match="cannot write into it"):
        open_run_directory("/proc/self", writable=True)
    (tmp_path / "file").write_text("in the way")
    for writable in (False, True):
        with pytest.raises(RunDirectoryError, match="file"):
            open_run_directory(tmp_path / "file", writable=writable)


def test_runs_that_start_together_get_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: create_run_directory(tmp_path, "Mlp"), range(64)))
    assert {run.path.name for run in runs} == {f"version_{k}" for k in range(64)}


@pytest.mark.parametrize("kind", ["best", "saved", "resume"])
def test_a_checkpoint_of_any_kind_is_located(tmp_path, kind):
    folder = tmp_path / "run" / "checkpoints" / kind
    assert locate(folder / "400") == (tmp_path / "run", folder, 400)
    assert locate(tmp_path / "run") == (tmp_path / "run", RunDirectory(tmp_path / "run").best, None)


@pytest.mark.parametrize("name", ["²", "-1", "4e2", "x"])
def test_other_names_are_no_step(tmp_path, name):
    assert locate(tmp_path / "run/checkpoints/best" / name)[2] is None
