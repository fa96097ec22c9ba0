"""The table of runs fits the terminal, and the command prints it."""

import json

import pytest

from boltax import cli
from boltax._runs._found import Columns, find_runs
from boltax._runs._table import table
from run_folders import make_run


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs/version_0", lr=0.1, acc=0.5)
    make_run(tmp_path / "runs/version_1", lr=0.025, acc=0.875, dropout=0.5, how="failed")
    return tmp_path / "runs"


def test_the_table_has_what_differs_and_what_was_reached(runs):
    text = table(Columns.of(find_runs([runs])).sorted_by(None), [], 120)
    head, _, titles, first, second = text.splitlines()
    assert head == "2 runs of MLP"
    assert titles.split() == [
        *("run", "lr", "dropout", "val/acc", "test/acc", "val/loss", "steps", "state", "age")
    ]
    assert first.split()[:8] == [
        *("version_1", "0.025", "0.5", "0.875", "0.4375", "0.5", "30", "failed")
    ]
    assert second.split()[:5] == ["version_0", "0.1", "-", "0.5", "0.25"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_line_is_wider_than_the_terminal(runs, width):
    make_run(runs / ("a_very_long_name_" * 4), note="x" * 200, other="y" * 50, third="z" * 30)
    text = table(Columns.of(find_runs([runs])), [], width)
    assert max(map(len, text.splitlines())) <= width
    assert "not shown, since it is too wide:" in text


def test_what_a_terminal_would_obey_is_not_printed(runs):
    make_run(runs / "version_2", model="\x1b[2J")
    assert "\x1b" not in table(Columns.of(find_runs([runs])), [], 80)


def test_the_command(runs, capsys):
    assert cli.main(["runs", str(runs), "--where", "lr>0.05", "--metric", "train/loss"]) == 2
    assert "column of the runs 'train/loss'" in capsys.readouterr().err
    assert cli.main(["runs", str(runs), "--json", "--sort", "lr"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["hyperparameters"]["optimizer_hparams.lr"] for run in found] == [0.025, 0.1]
    assert found[1]["metrics"] == {"val/acc": 0.5, "val/loss": 0.5, "test/acc": 0.25}
    assert cli.main(["runs", str(runs), "--where", "state=failed"]) == 0
    assert "1 run of MLP" in capsys.readouterr().out
