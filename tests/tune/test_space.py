"""The space of a study: its forms, its names, and how a command line writes it."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from boltax.errors import ConfigurationError, UnknownNameError
from boltax.tune._space import SearchSpace, check_arguments_of, read_space

FORMS = {
    "a range": ((0.0, 0.5), FloatDistribution(0.0, 0.5)),
    "a range on a log scale": (("log", 1e-4, 1e-1), FloatDistribution(1e-4, 1e-1, log=True)),
    "whole numbers": ((1, 4), IntDistribution(1, 4)),
    "whole numbers on a log scale": (("log", 16, 256), IntDistribution(16, 256, log=True)),
    "a whole and a broken end": ((0, 0.5), FloatDistribution(0, 0.5)),
    "choices": (["adam", "sgd", None, 3], CategoricalDistribution(["adam", "sgd", None, 3])),
    "Optuna's own": (FloatDistribution(0, 1, step=0.25), FloatDistribution(0, 1, step=0.25)),
}


@pytest.mark.parametrize("form, expected", FORMS.values(), ids=FORMS)
def test_each_form_means_one_distribution(form, expected):
    assert SearchSpace({"x": form}).distributions == {"x": expected}


BAD = {
    "a number": (0.1, r"write 'x': \[value\]"),
    "high below low": ((0.5, 0.1), "with low below high"),
    "log of 0": (("log", 0.0, 0.1), "above 0 for a log scale"),
    "bools as a range": ((False, True), "expected"),
    "three numbers": ((0, 1, 2), "expected"),
    "another word": (("lin", 0, 1), "expected"),
    "an infinity": ((0.0, float("inf")), "expected"),
    "no choice": ([], "expected at least one choice"),
    "choices that no storage keeps": ([(64, 64), (32,)], "write their names"),
    "a list for a range": (["log", 1e-4, 1e-1], r"Write 'x': \('log', 0.0001, 0.1\)"),
}


@pytest.mark.parametrize("form, message", BAD.values(), ids=BAD)
def test_what_is_no_form_is_explained(form, message):
    with pytest.raises(ConfigurationError, match=message):
        SearchSpace({"x": form})


@pytest.mark.parametrize("space", [{}, None, 3, "lr"])
def test_what_is_no_space_is_explained(space):
    with pytest.raises(ConfigurationError, match="expected a dict from each hyperparameter"):
        SearchSpace(space)


def test_a_function_chooses_by_what_it_chose_before():
    def space(trial):
        layers = trial.suggest_int("layers", 2, 2)
        return {"widths": tuple(trial.suggest_int(f"width{i}", 8, 8) for i in range(layers))}

    trial = optuna.create_study().ask()
    assert SearchSpace(space).hyperparameters(trial) == {"widths": (8, 8)}


@pytest.mark.parametrize("returned, message", [(None, "expected a dict"), ({"f": abs}, "a name")])
def test_a_function_that_returns_something_else_is_explained(returned, message):
    with pytest.raises(ConfigurationError, match=message):
        SearchSpace(lambda trial: returned).hyperparameters(optuna.create_study().ask())


def make_trainer(lr, features, dropout=0.1):
    raise AssertionError


def test_names_that_make_trainer_does_not_take_are_suggested():
    with pytest.raises(UnknownNameError, match="Did you mean 'features'"):
        SearchSpace({"lr": (0.0, 1.0), "feature": [1]}).check_names(make_trainer)


def test_an_argument_without_a_value_is_named():
    with pytest.raises(ConfigurationError, match="also asks for 'features'"):
        check_arguments_of(make_trainer, {"lr": 0.1})


def test_any_name_goes_where_make_trainer_takes_any():
    SearchSpace({"lr": (0.0, 1.0)}).check_names(lambda **hyperparameters: None)


def test_the_command_line_takes_a_dict_a_file_or_a_name(tmp_path):
    space = {"lr": ("log", 1e-4, 1e-1), "features": [64, 128]}
    file = tmp_path / "space.txt"
    file.write_text(f"{space!r}\n")
    assert read_space(repr(space), {}.__getitem__) == space
    assert read_space(str(file), {}.__getitem__) == space
    assert read_space("mine", {"mine": space}.__getitem__) == space


@pytest.mark.parametrize(
    "text, message",
    [
        ("{'lr': (0, 1}", "which is no Python dict"),
        ("{'lr': open('x')}", "which is no Python dict"),
        ("{1, 2}", "of type set; expected a dict"),
        ("lr=0..1", r"expected a dict, a file that holds one, or the name"),
    ],
)
def test_a_malformed_space_on_the_command_line_is_explained(text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_space(text, {}.__getitem__)
