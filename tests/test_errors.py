"""Errors are catchable as boltax's and as the builtin, and name what was meant."""

import inspect

import pytest

from boltax import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.ModelError, TypeError),
        (errors.LossError, ValueError),
        (errors.MetricsError, ValueError),
        (errors.DataError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.RunDirectoryError, OSError),
        (errors.TrainingError, RuntimeError),
        (errors.NonFiniteError, FloatingPointError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_each_error_is_also_the_matching_builtin(error, builtin):
    assert issubclass(error, errors.BoltaxError)
    assert issubclass(error, builtin)


def test_the_tree_in_the_docstring_shows_every_error():
    classes = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert all(name in errors.__doc__ for name in classes)


def test_unknown_names_suggest_the_nearest_whatever_the_case():
    assert "Did you mean 'TensorBoard'?" in str(
        errors.unknown_name("logger", "tensor_board", ["TensorBoard", "csv"])
    )
    assert "Did you mean" not in str(errors.unknown_name("logger", "zzz", ["TensorBoard"]))


def test_a_note_is_added_once_however_often_it_passes():
    with (
        pytest.raises(KeyError, match="x") as caught,
        errors.noting("the hook", "train, epoch 1"),
        errors.noting("the hook", "train, epoch 1"),
    ):
        raise KeyError("x")
    assert caught.value.__notes__ == ["raised in the hook (train, epoch 1)"]
