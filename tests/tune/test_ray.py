"""The objective of a study as a function for Ray Tune; `report` stands for that of Ray."""

import pytest

import tune_project as project
from boltax.tune import as_ray_trainable


@pytest.mark.parametrize("is_validated, metric", [(True, "val/acc"), (False, "train/acc")])
def test_each_epoch_is_reported(is_validated, metric):
    reported = []
    train_loader, val_loader, _ = project.make_loaders()
    train = as_ray_trainable(
        project.make_trainer,
        train_loader,
        val_loader if is_validated else None,
        num_epochs=2,
        report=reported.append,
    )
    train({"lr": 0.1, "width": 4})
    alone = project.make_trainer(lr=0.1, width=4)
    alone.train_model(train_loader, val_loader, num_epochs=2)
    assert [metrics["epoch"] for metrics in reported] == [1, 2]
    expected = [row[metric] for row in alone.run.history]
    assert [metrics[metric] for metrics in reported] == pytest.approx(expected)
