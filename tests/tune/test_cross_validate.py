"""Folds hold out each example once; their members are single runs; ensembles see no own example."""

import jax
import numpy as np
import pytest

from boltax.errors import ConfigurationError, DataError, TrainingError, UnknownNameError
from boltax.tune import CrossValidation, Predictions, cross_validate
from boltax.tune._folds import divided
from dummies import Plain, classes, classifier
from tune_dummies import SGD

DATA = classes(23)


def make(folder, seed=42):
    params = {"base_log_dir": str(folder), "logger_type": "none"}
    options = {"model_class": Plain, "optimizer_hparams": SGD, "logger_params": params}
    return classifier("unused", seed=seed, **options)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    options = {"folds": 2, "seeds": 2, "batch_size": 6, "num_epochs": 2}
    return cross_validate(lambda: make(folder), DATA, **options)


def test_each_example_is_held_out_once(result):
    assert sorted(np.concatenate(result.folds)) == list(range(23))
    assert sorted(map(len, result.folds)) == [11, 12]
    for fold, held_out in enumerate(result.folds):
        train, val = result.loaders(fold)
        np.testing.assert_array_equal(val.arrays[0], DATA[0][held_out])
        rest = np.setdiff1d(np.arange(23), held_out)
        np.testing.assert_array_equal(train.arrays[1], DATA[1][rest])


def test_a_member_of_a_fold_is_the_single_run_of_its_seed(result, tmp_path):
    single = make(tmp_path, seed=43)
    best = single.train_model(*result.loaders(1), num_epochs=2)
    assert result.seeds == (42, 43)
    assert result.scores("val/acc")[1, 1] == best["val/acc"]
    assert result.scores("val/loss")[1, 1] == pytest.approx(best["val/loss"], rel=1e-5)
    last = single.run.history[-1]["val/loss"]
    assert result.scores("val/loss", of_best=False)[1, 1] == pytest.approx(last, rel=1e-5)


def test_an_example_is_predicted_by_models_that_have_not_seen_it(result):
    found = result.predict()
    assert found.outputs.shape == (2, 23, 3)
    for fold, held_out in enumerate(result.folds):
        member = result.populations[fold].member(1)
        member.load_model()
        own = member.predict_model([(DATA[0][held_out], DATA[1][held_out])])
        np.testing.assert_allclose(found.outputs[1, held_out], own, atol=1e-6)


def test_it_is_printed_and_asked_by_name(result):
    scores = result.scores("val/acc")
    line = f"val/acc: {scores.mean():.4g} +- {scores.std():.2g}"
    assert str(result).splitlines()[0] == "2 folds, 2 seeds each"
    assert line in str(result).splitlines()
    with pytest.raises(UnknownNameError, match="Did you mean 'val/acc'"):
        result.scores("val/accc")


def test_an_ensemble_is_the_mean_of_bound_models(result):
    population = result.populations[0]
    ensemble = population.ensemble()
    outputs = []
    for number in (0, 1):
        member = population.member(number)
        member.load_model()
        outputs.append(np.asarray(member.bind_model()(DATA[0])))
    assert (ensemble.members, len(ensemble)) == ((0, 1), 2)
    np.testing.assert_allclose(ensemble.outputs(DATA[0]), outputs, atol=1e-6)
    np.testing.assert_allclose(ensemble(DATA[0]), np.mean(outputs, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ensemble.spread(DATA[0]), np.std(outputs, 0), rtol=1e-3, atol=1e-6)
    assert isinstance(ensemble(DATA[0]), jax.Array)


def test_folds_have_their_share_of_each_class():
    labels = np.array(["a"] * 10 + ["b"] * 5 + ["c"] * 2)
    parts = divided(17, 5, stratify=labels)
    assert sorted(np.concatenate(parts)) == list(range(17))
    assert {(labels[part] == "a").sum() for part in parts} == {2}
    assert {(labels[part] == "b").sum() for part in parts} == {1}
    assert max((labels[part] == "c").sum() for part in parts) == 1
    other = divided(17, 5, stratify=labels, seed=1)
    assert any(a.tolist() != b.tolist() for a, b in zip(parts, other, strict=True))


def test_a_group_is_in_one_fold():
    groups = np.repeat(np.arange(7), [1, 5, 2, 2, 3, 1, 6])
    parts = divided(20, 3, groups=groups)
    assert sorted(np.concatenate(parts)) == list(range(20))
    assert sum(len(set(groups[part])) for part in parts) == 7
    assert {len(part) for part in parts} <= {6, 7}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"folds": 1}, ConfigurationError, "folds=1 for 23 examples"),
        ({"folds": 24}, ConfigurationError, "folds=24"),
        ({"seeds": 0}, ConfigurationError, "seeds=0"),
        ({"seeds": ["a"]}, ConfigurationError, "seeds="),
        ({"stratify": [0, 1]}, DataError, r"stratify of shape \[2\] for 23 examples"),
        ({"groups": [0] * 23}, DataError, "1 groups for 2 folds"),
        ({"stratify": DATA[1], "groups": DATA[1]}, ConfigurationError, "stratify and groups"),
    ],
)
def test_bad_input_is_refused(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        cross_validate(lambda: make(tmp_path), DATA, **{"folds": 2, "num_epochs": 1, **options})


def test_folds_do_not_share_a_folder(tmp_path):
    params = {"log_dir": str(tmp_path / "one"), "logger_type": "none"}
    options = {"model_class": Plain, "logger_params": params}
    with pytest.raises(ConfigurationError, match="all have the folder"):
        cross_validate(lambda: classifier("unused", **options), DATA, folds=2, num_epochs=1)


def test_folds_of_which_a_member_has_failed_are_not_mixed():
    class Half:
        def __init__(self, members):
            self.members = members

        def predict(self, loader):
            return Predictions(self.members, np.zeros((len(self.members), 1, 1)))

    folds = (np.array([0]), np.array([1]))
    data = np.zeros((2, 1))
    mixed = CrossValidation(data, folds, (0, 1), (Half((0, 1)), Half((1,))), 1)
    with pytest.raises(TrainingError, match=r"fold 1 with members \(1,\)"):
        mixed.predict()
