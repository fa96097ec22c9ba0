"""The advice on a folder that is no run."""

from pathlib import Path

import pytest

from boltax.checkpoint._nearby import MOST_FOLDERS, advice_on, runs_below


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        (tmp_path / "runs" / "ResNet" / f"version_{number}" / "checkpoints" / "best").mkdir(
            parents=True
        )
    return tmp_path


def test_runs_are_found_below_a_folder_and_nothing_inside_them(runs):
    folder = runs / "runs" / "ResNet"
    assert runs_below(runs) == [folder / f"version_{number}" for number in range(6)]


def test_a_run_without_checkpoints_is_one_by_its_arguments(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "hparams.json").write_text("{}")
    assert runs_below(tmp_path) == [tmp_path / "new"]


@pytest.mark.usefixtures("runs")
def test_the_nearest_name_is_suggested():
    assert advice_on("runs/ResNet/verison_3") == "Did you mean runs/ResNet/version_3?"
    assert advice_on("runs/Resnet/version_5") == "Did you mean runs/ResNet/version_5?"


@pytest.mark.usefixtures("runs")
def test_without_a_near_name_the_runs_are_named():
    named = ", ".join(f"runs/ResNet/version_{number}" for number in range(4))
    assert advice_on("elsewhere") == f"Runs in this folder: {named} and 2 more."
    assert advice_on("runs") == f"Runs in runs: {named} and 2 more."


def test_without_runs_the_form_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "runs/ResNet/version_0" in advice_on("nope")


def test_the_search_ends_in_a_large_tree(tmp_path):
    for number in range(MOST_FOLDERS + 10):
        (tmp_path / f"{number:05d}").mkdir()
    (tmp_path / "zz" / "run" / "checkpoints").mkdir(parents=True)
    assert runs_below(tmp_path) == []
    assert runs_below(Path(tmp_path / "zz")) == [tmp_path / "zz" / "run"]
