"""The table of a population: rows, files and curves."""

import csv

import numpy as np
import pytest

from boltax.errors import ConfigurationError, UnknownNameError
from boltax.tune import Table


@pytest.fixture
def table():
    rows = [
        {"member": 0, "seed": 0, "lr": 0.1, "status": "finished", "reason": "", "val/acc": 0.5},
        {"member": 1, "seed": 1, "lr": 0.1, "status": "finished", "reason": "", "val/acc": 0.7},
        {"member": 2, "seed": 0, "lr": 0.2, "status": "diverged", "reason": "not finite"},
    ]
    history = [
        {"member": member, "epoch": epoch, "step": 8 * epoch, "val/acc": value}
        for member, epoch, value in [(0, 1, 0.3), (1, 1, 0.5), (0, 2, 0.5), (1, 2, 0.7)]
    ]
    return Table(rows, [*history, {"member": 2, "epoch": 1}], [("val/acc", "max")])


def test_the_best_is_that_of_the_monitor(table):
    assert table.best()["member"] == 1
    with pytest.raises(ConfigurationError, match="no member has any of val/acc; expected a valid"):
        Table(table.rows[2:], [], [("val/acc", "max")]).best()


def test_members_that_differ_in_the_seed_share_a_curve_with_mean_and_spread(table):
    ((label, epochs, mean, spread),) = table.curves("val/acc")
    assert label == "lr 0.1"
    np.testing.assert_allclose(epochs, [1, 2])
    np.testing.assert_allclose(mean, [0.4, 0.6])
    np.testing.assert_allclose(spread, [0.1, 0.1])


def test_rows_and_epochs_are_written_to_files(table, tmp_path):
    table.to_csv(tmp_path / "members.csv")
    table.to_csv(tmp_path / "epochs.csv", history=True)
    with (tmp_path / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/acc"] for row in rows] == ["0.5", "0.7", ""]
    assert len((tmp_path / "epochs.csv").read_text().splitlines()) == 6


def test_it_is_drawn_and_shown(table, tmp_path):
    pytest.importorskip("matplotlib")
    table.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert str(table).splitlines()[2].split() == ["1", "1", "0.1", "finished", "0.7"]
    with pytest.raises(UnknownNameError, match=r"metric 'val/ac'.*Did you mean 'val/acc'\?"):
        table.plot(tmp_path / "curves.png", metric="val/ac")


def test_it_becomes_a_data_frame(table):
    pytest.importorskip("pandas")
    frame = table.to_pandas(history=True)
    assert frame.groupby("member")["val/acc"].max().loc[1] == 0.7
    assert list(table.to_pandas()["lr"]) == [0.1, 0.1, 0.2]
