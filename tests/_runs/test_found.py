"""Runs below folders: found, filtered and sorted."""

import pytest

from boltax._runs._found import Columns, find_runs, short_names
from boltax.errors import ConfigurationError, RunDirectoryError, UnknownNameError
from run_folders import make_run


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs/MLP/version_9", lr=0.1, acc=0.5)
    make_run(tmp_path / "runs/MLP/version_10", lr=0.01, acc=0.9)
    make_run(tmp_path / "runs/CNN/version_0", lr=0.3, acc=float("nan"), model="CNN", how="failed")
    make_run(tmp_path / "runs/CNN/version_0/again/001", lr=0.4, acc=0.7, model="CNN")
    (tmp_path / "runs/CNN/version_0/checkpoints/best/3").mkdir(parents=True)
    return tmp_path / "runs"


def names(columns):
    return [run.name for run in columns.runs]


def test_runs_and_members_are_found_in_natural_order(runs):
    assert [run.name for run in find_runs([runs])] == [
        "CNN/version_0",
        "CNN/version_0/again/001",
        "MLP/version_9",
        "MLP/version_10",
    ]
    twice = find_runs([runs / "MLP", runs / "MLP/version_9"])
    assert [run.name for run in twice] == ["version_9", "version_10"]


def test_the_best_come_first_and_nan_last(runs):
    columns = Columns.of(find_runs([runs]))
    assert names(columns.sorted_by(None)) == [
        "MLP/version_10",
        "CNN/version_0/again/001",
        "MLP/version_9",
        "CNN/version_0",
    ]
    assert names(columns.sorted_by("lr"))[0] == "MLP/version_10"
    assert names(columns.sorted_by("run", is_reversed=True))[0] == "MLP/version_10"


@pytest.mark.parametrize(
    "condition, count",
    [
        ("lr>=0.1", 3),
        ("optimizer_hparams.lr < 0.1", 1),
        ("state=finished", 3),
        ("model != CNN", 2),
        ("val/acc>0.6", 2),
        ("width==8", 4),
        ("width=9", 0),
    ],
)
def test_where(runs, condition, count):
    assert len(Columns.of(find_runs([runs])).where(condition).runs) == count


def test_what_differs(runs):
    assert Columns.of(find_runs([runs])).differing() == ["lr"]


def test_bad_requests_say_what_to_write(runs, tmp_path):
    columns = Columns.of(find_runs([runs]))
    with pytest.raises(UnknownNameError, match="Did you mean 'lr'"):
        columns.where("lrr=1")
    with pytest.raises(ConfigurationError, match=r'Write --where "lr>=0\.01"'):
        columns.where("lr")
    with pytest.raises(RunDirectoryError, match="which is no folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(RunDirectoryError, match="in which there is no run"):
        find_runs([runs / "MLP/version_9/metrics"])


def test_short_names_of_one(tmp_path):
    assert short_names([tmp_path / "MLP/version_0"]) == ["MLP/version_0"]
