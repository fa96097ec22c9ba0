"""Metrics that are derived from others, in every record, evaluation and member."""

import csv
import math

import numpy as np
import pytest

from boltax._loop._derived import derived_names
from boltax.callbacks import Callback
from boltax.errors import MetricsError
from boltax.tune import Population
from dummies import Classifier, Plain, classifier, loader
from tune_dummies import SGD


class Derived(Classifier):
    """With a perplexity, and an F1 score of counts."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        is_found, is_one = model(batch[0]).argmax(-1) == 1, batch[1] == 1
        counts = {"both": is_found & is_one, "found": is_found, "ones": is_one}
        return loss, {**metrics, **counts}

    def derived_metrics(self, metrics):
        total = metrics["found"] + metrics["ones"]
        return {"ppl": math.exp(metrics["loss"]), "f1": 2 * metrics["both"] / max(total, 1e-9)}


MONITOR = ("val/f1", "max")


def make(folder, trainer_class=Derived, **options):
    params = {"log_dir": str(folder), "logger_type": "csv"}
    settings = {"model_class": Plain, "optimizer_hparams": SGD, "logger_params": params}
    return classifier("unused", trainer_class, **{**settings, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    records = []

    class Recorder(Callback):
        def on_log(self, view):
            records.append(dict(view.metrics))

    folder = tmp_path_factory.mktemp("derived") / "run"
    trainer = make(folder, monitor=MONITOR, callbacks=[Recorder()])
    tested = trainer.train_model(loader(50 * 16), loader(20, 8), loader(12, 8), num_epochs=1)
    return trainer, records, tested


def test_they_are_in_records_rows_evaluations_and_the_test(run):
    trainer, records, tested = run
    row = trainer.run.history[0]
    for values, prefix in (
        (records[0], "train/step/"),
        (row, "train/"),
        (row, "val/"),
        (tested, "test/"),
        (trainer.eval_model(loader(20, 8)), ""),
    ):
        assert values[f"{prefix}ppl"] == math.exp(values[f"{prefix}loss"])


def test_they_are_of_the_whole_data_set_and_no_mean_over_batches(run):
    trainer, _, tested = run
    trainer.load_model()
    inputs, labels = loader(12, 8).arrays
    found = np.asarray(trainer.bind_model()(inputs)).argmax(-1) == 1
    both = (found & (labels == 1)).sum()
    assert tested["test/f1"] == pytest.approx(2 * both / (found.sum() + (labels == 1).sum()))


def test_members_have_them_and_they_may_be_the_monitor(tmp_path, run):
    trainer = make(tmp_path / "members", monitor=MONITOR)
    population = Population(trainer, [{"seed": 42}], members_per_step=1)
    table = population.train_model(loader(50 * 16), loader(20, 8), 1, test_loader=loader(12, 8))
    assert table.best()["val/f1"] == pytest.approx(run[2]["val/f1"], rel=1e-5)
    assert table[0]["test/ppl"] == pytest.approx(run[2]["test/ppl"], rel=1e-5)
    with (tmp_path / "members" / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"member_000/train/step/ppl", "member_000/train/ppl", "member_000/val/f1"} <= {*columns}


class Misspelt(Derived):
    def derived_metrics(self, metrics):
        return {"ppl": math.exp(metrics["los"])}


class Twice(Derived):
    def derived_metrics(self, metrics):
        return {"acc": 1.0}


class Number(Derived):
    def derived_metrics(self, metrics):
        return 3.0


@pytest.mark.parametrize(
    ("trainer_class", "options", "match"),
    [
        (Misspelt, {}, "Did you mean 'loss'"),
        (Twice, {}, "is a metric already"),
        (Number, {}, "expected metrics by name"),
        (Derived, {"monitor": ("val/f2", "max")}, "val/f1, val/found, val/loss, val/ones, val/ppl"),
    ],
)
def test_mistakes_are_told_before_the_first_step(tmp_path, trainer_class, options, match):
    trainer = make(tmp_path, trainer_class, **options)
    with pytest.raises(MetricsError, match=match):
        trainer.train_model(loader(64), loader(20, 8), num_epochs=1)
    assert not int(trainer.state.step)


def test_names_that_only_values_tell_are_left_open():
    assert derived_names(lambda m: {"x": m["loss"][0]}, ["val/loss"], "val/") is None
    assert derived_names(lambda m: {"x": 1}, ["val/loss"], "val/") == ["val/loss", "val/x"]
    assert derived_names(None, ["val/loss"], "val/") == ["val/loss"]
