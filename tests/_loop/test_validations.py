"""Named evaluations: several loaders, each with the common cadence or its own, and functions."""

import numpy as np
import pytest

import boltax as bx
from boltax import Evaluation, Every
from boltax._loop._validations import Validations
from boltax.callbacks import Callback, EarlyStopping
from boltax.errors import BoltaxError, ConfigurationError, MetricsError
from boltax.tune import Population
from dummies import Plain, classes, classifier, loader
from tune_dummies import SGD


def make(folder, **options):
    params = {"log_dir": str(folder), "logger_type": "csv"}
    return classifier("unused", **{"model_class": Plain, "logger_params": params, **options})


def shifted():
    inputs, labels = classes(20)
    return bx.data.ArrayLoader((inputs + 1, labels), 8)


def mean_of_weights(trainer, loader):
    assert loader is None
    kernel = np.asarray(trainer.state.params["Dense_0"]["kernel"])
    return {"weight": float(kernel.mean())}


def evaluations():
    return {
        "clean": loader(20, 8),
        "shifted": shifted(),
        "weights": Evaluation(function=mean_of_weights, every=3),
    }


TEST = {"clean": loader(12), "half": loader(6)}
CALL = {"num_epochs": 2, "validate_every": 4}
"""With five steps in an epoch."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    views = []

    class Recorder(Callback):
        def on_validation_epoch_end(self, view):
            kernel = np.asarray(view.state.params["Dense_0"]["kernel"])
            clean = trainer.eval_model(loader(20, 8), "val/clean/")
            views.append((view.step, view.is_complete, dict(view.metrics), kernel.mean(), clean))

    trainer = make(
        tmp_path_factory.mktemp("named") / "run",
        callbacks=[Recorder()],
        monitor=("val/shifted/acc", "max"),
    )
    tested = trainer.train_model(loader(70, shuffle=True), evaluations(), TEST, **CALL)
    return trainer, views, tested


def test_each_has_its_name_and_its_cadence(run):
    both = {f"val/{name}/{metric}" for name in ("clean", "shifted") for metric in ("loss", "acc")}
    weights = {"val/weights/weight"}
    found = {step: (is_complete, set(metrics)) for step, is_complete, metrics, *_ in run[1]}
    assert found == {
        3: (False, weights),
        4: (False, both),
        6: (False, weights),
        8: (False, both),
        9: (False, weights),
        10: (True, both | weights),
    }


def test_the_values_are_those_of_the_state_of_that_step(run):
    for _, _, metrics, mean, clean in run[1]:
        if "val/weights/weight" in metrics:
            assert metrics["val/weights/weight"] == pytest.approx(mean, abs=1e-7)
        if "val/clean/acc" in metrics:
            assert {n: v for n, v in metrics.items() if "clean" in n} == clean


def test_the_best_model_is_that_of_the_named_monitor(run):
    trainer, views, tested = run
    accuracies = {step: m["val/shifted/acc"] for step, _, m, *_ in views if "val/shifted/acc" in m}
    best = max(accuracies, key=lambda step: (accuracies[step], -step))
    assert trainer.run.best_steps[-1] == best
    assert tested["val/shifted/acc"] == accuracies[best]
    trainer.load_model()
    assert tested["test/half/acc"] == trainer.eval_model(loader(6))["acc"]
    assert {"test/clean/acc", "test/half/loss"} <= tested.keys()


def test_members_have_named_evaluations_too(tmp_path, run):
    trainer = make(tmp_path, optimizer_hparams=SGD, monitor=("val/shifted/acc", "max"))
    population = Population(trainer, [{"seed": 42}, {"seed": 1}], members_per_step=2)
    train = loader(70, shuffle=True)
    table = population.train_model(train, evaluations(), test_loader=TEST, **CALL)
    single = make(tmp_path / "one", optimizer_hparams=SGD, monitor=("val/shifted/acc", "max"))
    expected = single.train_model(train, evaluations(), TEST, **CALL)
    for name, value in expected.items():
        if name.startswith(("val/", "test/")):
            assert table[0][name] == pytest.approx(value, rel=1e-4)


def test_early_stopping_waits_for_the_evaluation_that_it_follows(tmp_path):
    stopping = EarlyStopping("val/weights/constant", mode="max", patience=1)
    constant = Evaluation(function=lambda trainer, loader: {"constant": 1}, every=3)
    trainer = make(tmp_path, callbacks=[stopping], monitor=("val/clean/loss", "min"))
    named = {"clean": loader(20, 8), "weights": constant}
    trainer.train_model(loader(70), named, num_epochs=2, validate_every=2)
    assert trainer.run.step == 6


@pytest.mark.parametrize(
    ("named", "options", "match"),
    [
        (Evaluation(shifted()), {}, "that has no name"),
        ([Evaluation(shifted())], {}, "that has no name"),
        ({"a/b": shifted()}, {}, "without '/'"),
        ({"a": None}, {}, "expected a loader or an Evaluation"),
        ({"a": shifted()}, {"monitor": ("val/b/acc", "max")}, "Write 'val/a/acc'"),
        ({"a": shifted()}, {"monitor": ("val/acc", "max")}, "Write 'val/a/acc'"),
        ({"a": shifted()}, {"monitor": ("val/a/accuracy", "max")}, "Did you mean 'val/a/acc'"),
        ({"a": 3}, {}, r"val_loader\['a'\]=int"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_step(tmp_path, named, options, match):
    trainer = make(tmp_path, **options)
    with pytest.raises(BoltaxError, match=match):
        trainer.train_model(loader(70), named, num_epochs=1)
    assert not int(trainer.state.step)


def test_a_function_that_gives_no_metrics_is_named(tmp_path):
    named = {"fid": Evaluation(function=lambda trainer, loader: 3)}
    with pytest.raises(MetricsError, match="from the function of the evaluation 'fid'"):
        make(tmp_path).train_model(loader(16), named, num_epochs=1)


@pytest.mark.parametrize("wrong", [{}, {"loader": [1], "every": "1"}, {"function": 3}])
def test_an_evaluation_of_nothing_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="Received Evaluation"):
        Evaluation(**wrong)


def test_cadences_count_for_themselves():
    validations = Validations.of(
        Every(steps=4), {"a": [], "b": Evaluation([1], every=6)}, is_at_start=False
    )
    due = {}
    for step in range(1, 13):
        if validations.ask(step):
            due[step] = validations.due
            validations.note(step)
    assert due == {4: ("a",), 6: ("b",), 8: ("a",), 12: ("a", "b")}
    assert not validations.ask(13, ended_epoch=1)
    assert validations.ask(17, ended_epoch=1)  # the steps of a loop of one's own went past 16
    assert validations.due == ("a",)
