"""A population goes through the loop of a run: what that one has learned, its members have too."""

import csv

import numpy as np
import pytest

import boltax as bx
from boltax.checkpoint import BestCheckpoints
from boltax.errors import BoltaxError, NotSavedError
from boltax.tune import Population, Status
from dummies import Classifier, classifier, loader
from tune_dummies import MEMBERS, SGD, arrays, train_loader

SIZES = pytest.mark.parametrize("size", [1, 2])


def population(folder, trainer_class=Classifier, size=1, **options):
    params = {"log_dir": str(folder / "population"), "logger_type": "csv"}
    options = {"optimizer_hparams": SGD, "logger_params": params, **options}
    trainer = classifier(folder, trainer_class, **options)
    return Population(trainer, MEMBERS, members_per_step=size)


def single(folder, trainer_class=Classifier, **options):
    """The single run of member 1."""
    hparams = {**SGD, "weight_decay": 0.1, "lr": 3e-2}
    params = {"log_dir": str(folder / "single"), "logger_type": "csv"}
    return classifier(
        folder, trainer_class, optimizer_hparams=hparams, seed=1, logger_params=params, **options
    )


def records(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def full(monkeypatch, times):
    """Has the first saves of best models fail as on a full disk."""
    save, left = BestCheckpoints.save, [*range(times)]

    def failing(self, *arguments, **options):
        if left:
            left.pop()
            raise OSError(28, "No space left on device")
        return save(self, *arguments, **options)

    monkeypatch.setattr(BestCheckpoints, "save", failing)


def test_models_that_cannot_be_written_are_told(tmp_path, monkeypatch, caplog):
    full(monkeypatch, 10**6)
    together = population(tmp_path)
    with pytest.raises(NotSavedError):
        together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert len(together.table) == 3
    assert "Saving the best model of member 0 failed" in caplog.text
    assert "No space left on device" in caplog.text
    told = [record.message for record in caplog.records if "NOT SAVED" in record.message]
    assert len(told) == 1
    for number in range(3):
        assert f"the best model of member {number}" in told[0]
    assert not list((tmp_path / "population" / "members").rglob("manifest.json"))


def test_a_model_that_could_not_be_written_is_written_later(tmp_path, monkeypatch, caplog):
    full(monkeypatch, 1)
    together = population(tmp_path)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert "Saving the best model of member 0 failed" in caplog.text
    assert "NOT SAVED" not in caplog.text
    for number in range(3):
        best = BestCheckpoints(tmp_path / f"population/members/{number:03d}/checkpoints/best")
        assert best.restore().metrics["val/loss"] == table[number]["val/loss"]


@SIZES
def test_a_last_batch_with_fewer_examples_is_filled_up_exactly(tmp_path, size):
    together, alone = population(tmp_path, size=size), single(tmp_path)
    table = together.train_model(train_loader(), loader(27, 8), num_epochs=1)
    alone.train_model(train_loader(), loader(27, 8), num_epochs=1)
    assert table[1]["val/acc"] == alone.run.best["val/acc"]
    assert table[1]["val/loss"] == pytest.approx(alone.run.best["val/loss"], rel=1e-5)
    assert together._trainees.steps.padding.is_exact


@SIZES
def test_max_steps_ends_within_an_epoch_and_a_resume_goes_on(tmp_path, size):
    hparams, parts = {**SGD, "schedule": "constant"}, tmp_path / "parts"
    whole = population(tmp_path / "whole", size=size, optimizer_hparams=hparams)
    expected = whole.train_model(train_loader(), loader(32, 8), num_epochs=3)
    first = population(parts, size=size, optimizer_hparams=hparams)
    table = first.train_model(train_loader(), loader(32, 8), num_epochs=3, max_steps=11)
    assert [row["step"] for row in table] == [11, 11, 11]
    assert {row["status"] for row in table} == {Status.FINISHED.value}
    assert table[0]["reason"] == "max_steps=11 is reached"
    assert all(np.isfinite(row["val/loss"]) for row in table)
    last = population(parts, size=size, optimizer_hparams=hparams)
    table = last.train_model(train_loader(), loader(32, 8), num_epochs=3, resume=True)
    assert [row["step"] for row in table] == [24, 24, 24]
    assert table.rows == expected.rows
    assert table.history == expected.history


def test_a_member_with_max_steps_is_its_single_run(tmp_path):
    together, alone = population(tmp_path), single(tmp_path)
    together.train_model(train_loader(), loader(32, 8), num_epochs=3, max_steps=11)
    alone.train_model(train_loader(), loader(32, 8), num_epochs=3, max_steps=11)
    one, other = arrays(together.member(1)), arrays(alone)
    for name in ("params", "step", "rng"):
        np.testing.assert_equal(one[name], other[name])


def test_max_time_ends_it_with_a_validation(tmp_path):
    together = population(tmp_path)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=500, max_time=0.001)
    assert table[0]["reason"] == "max_time is used up"
    assert all(0 < row["step"] < 4000 and np.isfinite(row["val/loss"]) for row in table)


@SIZES
def test_records_within_an_epoch_are_those_of_the_single_runs(tmp_path, size):
    loop = bx.LoopOptions(log_every=3)
    together, alone = population(tmp_path, size=size, loop=loop), single(tmp_path, loop=loop)
    together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    alone.train_model(train_loader(), loader(32, 8), num_epochs=2)
    many = {
        row["step"]: float(row["member_001/train/step/loss"])
        for row in records(tmp_path / "population")
        if row["member_001/train/step/loss"]
    }
    one = {
        row["step"]: float(row["train/step/loss"])
        for row in records(tmp_path / "single")
        if row["train/step/loss"]
    }
    assert list(many) == list(one) == ["3", "6", "9", "12", "15"]
    assert list(many.values()) == pytest.approx(list(one.values()), rel=1e-5)


def test_a_mistake_in_the_validation_shows_before_the_first_epoch_is_over(tmp_path):
    class Wrong(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return (loss, metrics) if train else (loss[:1, None], metrics)

    together = population(tmp_path, Wrong)
    with pytest.raises(BoltaxError) as raised:
        together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert any("one validation batch" in note for note in raised.value.__notes__)
    assert together._trainees.run.step < 8


@SIZES
def test_the_test_is_that_of_each_best_model(tmp_path, size):
    together, alone = population(tmp_path, size=size), single(tmp_path)
    data = train_loader(), loader(32, 8)
    table = together.train_model(*data, num_epochs=2, test_loader=loader(40, 16))
    metrics = alone.train_model(*data, loader(40, 16), num_epochs=2)
    assert table[1]["test/acc"] == metrics["test/acc"]
    assert table[1]["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert (tmp_path / "population/members/001/metrics/test.json").is_file()
    with (tmp_path / "population" / "members.csv").open() as file:
        assert [float(row["test/acc"]) for row in csv.DictReader(file)] == [
            row["test/acc"] for row in table
        ]


class Derived(Classifier):
    """Derives a metric in the hook, from the metrics and from the member's own state."""

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        eval_metrics["val/error"] = 1 - eval_metrics["val/acc"]
        eval_metrics["val/steps"] = int(self.state.step)


def test_the_hook_of_a_validation_derives_metrics_for_each_member(tmp_path):
    together = population(tmp_path, Derived, monitor=("val/error", "min"))
    before = together.trainer.state
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    for row in table:
        assert row["val/error"] == 1 - row["val/acc"]
        assert row["val/steps"] in (8, 16)
    assert [row["val/steps"] for row in table.history] == [8, 8, 8, 16, 16, 16]
    assert together.trainer.state is before
