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


def test_going_on_from_an_epoch_drops_the_later_rows(tmp_path):
    history = History(str(tmp_path / "history.csv"))
    history.truncate(0)
    assert not (tmp_path / "history.csv").exists()
    for epoch in (1, 2, 3):
        history.append({"epoch": epoch})
    history.truncate(3)
    assert len(history.rows()) == 3
    history.truncate(1)
    assert history.rows() == [{"epoch": 1}]


def test_a_row_needs_its_epoch(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Received a row with \['train/loss'\].*epoch"):
        History(tmp_path / "history.csv").append({"train/loss": 0.5})
