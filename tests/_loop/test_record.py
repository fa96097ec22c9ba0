"""Records: each is the mean over the steps since the last, at its step, however steps are sent."""

import csv
from pathlib import Path

import numpy as np
import pytest

import boltax as bx
from dummies import Classifier, classes, classifier, loader


class Mean(Classifier):
    """Its metrics are known beforehand: the mean of a column of the batch, and its examples."""

    def loss_function(self, model, batch, train):
        loss, _ = super().loss_function(model, batch, train)
        return loss, {"first": batch[0][:, 0], "size": (batch[1].size, 1)}


def records(folder):
    with (Path(folder) / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["train/step/first"]]


@pytest.mark.parametrize("fused", [1, 4])
def test_a_record_is_the_mean_over_its_interval(tmp_path, fused):
    loop = bx.LoopOptions(log_every=3, steps_per_execution=fused)
    trainer = classifier(tmp_path, Mean, loop=loop)
    trainer.train_model(loader(64, 8), num_epochs=2)
    column = np.float64(classes(64)[0][:, 0])
    found = {int(row["step"]): float(row["train/step/first"]) for row in records(trainer.log_dir)}
    # within an epoch of eight steps intervals end at every third step of the run; what an epoch
    # has begun and not ended is in its mean alone
    expected = {
        3: column[:24].mean(),
        6: column[24:48].mean(),
        9: column[:8].mean(),
        12: column[8:32].mean(),
        15: column[32:56].mean(),
    }
    assert found.keys() == expected.keys()
    for step, value in expected.items():
        assert found[step] == pytest.approx(value, rel=1e-6)


def test_a_record_is_one_row_with_its_step(tmp_path):
    trainer = classifier(tmp_path, Mean, loop=bx.LoopOptions(log_every=2))
    trainer.train_model(loader(64, 8), num_epochs=1)
    rows = records(trainer.log_dir)
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    assert {float(row["train/step/size"]) for row in rows} == {8.0}
    assert "speed/steps_per_second" in rows[-1]
