"""Which trials share a program: as their trainers say, not their names."""

import flax.linen as nn
import numpy as np
import pytest

import tune_project as project
from boltax.errors import OptimizerError
from boltax.tune._groups import described_trainer, description_of, is_same, varied_names
from boltax.tune._space import SearchSpace


def describe(make_trainer, hyperparameters):
    return description_of(described_trainer(make_trainer, hyperparameters))


PAIRS = {
    "a learning rate": ({"lr": 0.1}, {"lr": 0.2}, True),
    "a dropout rate": ({"lr": 0.1, "rate": 0.1}, {"lr": 0.1, "rate": 0.5}, True),
    "a seed": ({"lr": 0.1, "seed": 1}, {"lr": 0.1, "seed": 2}, True),
    "a width": ({"lr": 0.1, "width": 4}, {"lr": 0.1, "width": 8}, False),
}


@pytest.mark.parametrize("left, right, expected", PAIRS.values(), ids=PAIRS)
def test_trials_share_a_program_unless_it_would_be_another(left, right, expected):
    one, two = (
        describe(project.make_trainer, hyperparameters) for hyperparameters in (left, right)
    )
    assert one.shares_program(two) is expected
    assert two.shares_program(one) is expected


def test_values_are_those_of_the_trainer_whatever_the_arguments_were_called():
    def make_trainer(log_lr):
        return project.make_trainer(lr=10**log_lr)

    assert describe(make_trainer, {"log_lr": -2}).values["lr"] == pytest.approx(0.01)


def test_an_optimizer_or_a_number_that_only_one_has_makes_a_group():
    def make_trainer(optimizer):
        return project.Classifier(
            project.Mlp, {}, optimizer, exmp_input=next(iter(project.make_loaders()[0])), rate=0.1
        )

    adam, sgd, momentum = (
        describe(make_trainer, {"optimizer": {"lr": 0.1, **options}})
        for options in ({}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9})
    )
    assert not adam.shares_program(sgd)
    assert not sgd.shares_program(momentum)


def test_only_numbers_that_the_space_varies_are_values():
    space = SearchSpace({"lr": (0.01, 0.1), "width": [4, 8], "weight_decay": [1e-3]})
    names = varied_names(project.make_trainer, space)
    assert names == {"lr", "seed"}
    described = describe(project.make_trainer, {"lr": 0.05}).varying(names)
    assert described.values == {"lr": 0.05, "seed": 0}
    other = describe(project.make_trainer, {"lr": 0.05, "weight_decay": 0.5}).varying(names)
    assert not described.shares_program(other)


def test_a_description_makes_no_trainer(tmp_path):
    describe(project.make_trainer, {"lr": 0.1})
    assert not list(tmp_path.iterdir())
    trainer = project.make_trainer(lr=0.1)
    described = describe(project.make_trainer, {"lr": 0.1})
    assert described.shares_program(description_of(trainer))
    assert described.values == description_of(trainer).values


def test_settings_that_cannot_work_are_told_by_the_description():
    with pytest.raises(OptimizerError, match="lr"):
        describe(project.make_trainer, {"lr": "fast"})


@pytest.mark.parametrize(
    "left, right, expected",
    [
        ({"a": (1, [2])}, {"a": (1, [2])}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        (np.ones(3), np.ones(3), True),
        (np.ones(3), np.zeros(3), False),
        (nn.relu, nn.relu, True),
        (nn.relu, nn.gelu, False),
        ([1], [1, 2], False),
    ],
)
def test_hyperparameters_are_compared_by_value_and_type(left, right, expected):
    assert is_same(left, right) is expected
