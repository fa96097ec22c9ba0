import math

import numpy as np
import pytest

from boltax.errors import ConfigurationError
from boltax.loggers import History


def test_one_row_per_epoch_with_columns_that_come_later(tmp_path):
    history = History(tmp_path / "run" / "history.csv")
    assert history.rows() == []
    history.append({"epoch": 1, "step": 10, "train/loss": 0.1})
    history.append({"epoch": 2, "step": 20, "train/loss": 0.05, "val/acc": math.nextafter(1, 0)})
    history.append({"epoch": 1, "val/acc": 0.5, "val/confusion": np.eye(2)})
    assert History(tmp_path / "run" / "history.csv").rows() == [
        {"epoch": 1, "step": 10, "train/loss": 0.1, "val/acc": 0.5},
        {"epoch": 2, "step": 20, "train/loss": 0.05, "val/acc": math.nextafter(1, 0)},
    ]
    text = (tmp_path / "run" / "history.csv").read_text()
    assert text.splitlines()[0] == "epoch,step,train/loss,val/acc"


def test_a_run_that_goes_on_leaves_the_file_of_an_uninterrupted_one(tmp_path):
    rows = [{"epoch": 1, "a": 0.1}, {"epoch": 2, "a": 0.2}, {"epoch": 3, "a": 0.3, "b": 1.0}]
    whole, resumed = (History(tmp_path / name) for name in ("whole.csv", "resumed.csv"))
    for row in rows:
        whole.append(row)
        resumed.append(row | {"late": 1.0})
    resumed.replace(rows[:2])
    resumed.append(rows[2])
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    resumed.replace([])
    assert not (tmp_path / "resumed.csv").exists()
    resumed.append(rows[0])
    assert resumed.rows() == rows[:1]


def test_a_row_needs_its_epoch(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Received a row with \['train/loss'\].*epoch"):
        History(tmp_path / "history.csv").append({"train/loss": 0.5})
    with pytest.raises(ConfigurationError, match=r"Received a row with \['train/loss'\].*epoch"):
        History(tmp_path / "history.csv").replace([{"epoch": 1}, {"train/loss": 0.5}])
    assert not (tmp_path / "history.csv").exists()
