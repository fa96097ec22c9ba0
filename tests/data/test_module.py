"""A data module gives the loaders of a run, and is found again with it; parts of arrays."""

import dataclasses
import functools

import numpy as np
import pytest

import boltax as bx
from boltax.data import ArrayLoader, DataModule, split
from boltax.errors import ConfigurationError
from boltax.tune import Population
from dummies import Classifier as Base
from dummies import Plain, classes, classifier


class Classifier(Base):
    """Of this file, where its data module is found by name."""


@dataclasses.dataclass(frozen=True)
class Points(DataModule):
    batch_size: int = 8
    seed: int = 0

    @functools.cached_property
    def parts(self):
        return split(classes(40), {"train": 24, "val": 8, "test": 8}, seed=self.seed)

    def train_loader(self):
        return ArrayLoader(self.parts["train"], self.batch_size, shuffle=True)

    def val_loader(self):
        return {"all": ArrayLoader(self.parts["val"], self.batch_size)}

    def test_loader(self):
        return ArrayLoader(self.parts["test"], self.batch_size)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trainer = classifier(
        tmp_path_factory.mktemp("module"),
        Classifier,
        model_class=Plain,
        exmp_input=None,
        data=Points(seed=3),
        monitor=("val/all/loss", "min"),
    )
    return trainer, trainer.train_model(num_epochs=1)


def test_a_run_takes_its_loaders_from_the_module_of_its_trainer(trained):
    trainer, metrics = trained
    data = Points(seed=3)
    assert trainer.run.step == 3
    assert trainer.exmp_input[0].shape == (8, 4)
    found = trainer.eval_model(data.test_loader(), "test")
    assert found["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert "val/all/acc" in metrics


def test_it_is_stored_by_its_fields_and_found_again(trained):
    loaded = Classifier.load_from_checkpoint(trained[0].log_dir)
    assert loaded.hparams["data"] == Points(batch_size=8, seed=3)
    outputs = loaded.predict_model(loaded.hparams["data"].predict_loader())
    assert outputs.shape == (8, 3)
    stored = (bx.checkpoint.RunDirectory(trained[0].log_dir).hparams).read_text()
    assert "trainer:Points" in stored
    assert len(stored) < 5000  # its fields and not its arrays


def test_the_module_may_be_given_to_train_model_or_to_a_population(tmp_path):
    make = functools.partial(
        classifier, tmp_path, Classifier, model_class=Plain, monitor=("val/all/loss", "min")
    )
    own, by_hand = make(), make()
    data = Points()
    options = {"num_epochs": 1}
    found = own.train_model(data, **options)
    loaders = data.train_loader(), data.val_loader(), data.test_loader()
    assert by_hand.train_model(*loaders, **options) == found
    assert "test/loss" in own.fast_dev_run(data)
    population = Population(make(), [{"seed": 42}])
    table = population.train_model(data, **options)
    assert table[0]["val/all/loss"] == pytest.approx(found["val/all/loss"], rel=1e-5)


def test_what_contradicts_itself_is_refused(tmp_path):
    trainer = classifier(tmp_path, Classifier, model_class=Plain)
    with pytest.raises(ConfigurationError, match="no train_loader, and a trainer without"):
        trainer.train_model(num_epochs=1)
    with pytest.raises(ConfigurationError, match="Points and a loader beside it"):
        trainer.train_model(Points(), Points().test_loader(), num_epochs=1)
    with pytest.raises(ConfigurationError, match="DataModule without train_loader"):
        trainer.train_model(DataModule(), num_epochs=1)


def test_it_says_how_it_is_split():
    text = "train: 24 examples in 3 batches; val/all: 8 examples in 1 batches"
    assert Points().describe() == f"{text}; test: 8 examples in 1 batches"

    class Stream(DataModule):
        def train_loader(self):
            return iter([1])

    assert Stream().describe() == "train: list_iterator"


@pytest.mark.parametrize(
    "parts", [{"a": 7, "b": 4}, {"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 1.0, "b": 0.0}]
)
def test_parts_hold_each_example_once(parts):
    numbers = np.arange(11)
    found = split((numbers, -numbers), parts, seed=1)
    whole = np.concatenate([part[0] for part in found.values()])
    assert sorted(whole) == list(numbers)
    for name, (first, second) in found.items():
        np.testing.assert_array_equal(second, -first)
        size = parts[name] if isinstance(parts[name], int) else parts[name] * 11
        assert abs(len(first) - size) <= 1
        assert list(first) == sorted(first)
    assert any((whole != np.sort(whole)).tolist()) or len(found["a"][0]) == 11


@pytest.mark.parametrize("parts", [{}, {"a": 0.5}, {"a": 5, "b": 5}, {"a": 0.5, "b": 5}])
def test_parts_that_do_not_add_up_are_refused(parts):
    with pytest.raises(ConfigurationError, match="for 11 examples; expected fractions"):
        split(np.arange(11), parts)
