from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.loggers._values import flatten, histogram, scalar, scalars


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, 3),
        (True, 1),
        (np.bool_(True), 1),
        (np.int32(3), 3),
        (0.1, 0.1),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.asarray([2.5]), 2.5),
        (jnp.asarray(1.5, jnp.bfloat16), 1.5),
    ],
)
def test_numbers_become_python_numbers(value, expected):
    found = scalar(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value", [None, "1.5", np.str_("1.5"), np.eye(2), np.zeros(0), 1j, np.complex64(1), [1.0], {}]
)
def test_other_values_are_no_scalars(value):
    assert scalar(value) is None


def test_scalars_keep_their_names_and_leave_the_rest_out():
    found = scalars({"train/loss": np.float32(0.5), "val/confusion": np.eye(2), "note": "text"})
    assert found == {"train/loss": 0.5}


def test_device_values_are_fetched_under_a_transfer_guard():
    value = jnp.asarray(2.0)
    with jax.transfer_guard("disallow"):
        assert scalar(value) == 2.0


@dataclass
class Options:
    keep: int = 2
    inner: dict = None


def test_hyperparameters_become_one_level_of_plain_values():
    params = {
        "lr": np.float32(0.5),
        "dtype": jnp.bfloat16,
        "act_fn": jnp.tanh,
        "make": partial(max, 1),
        "sizes": (3, 3),
        "options": Options(inner={"a": None}),
        "empty": {},
        "table": np.zeros((10, 10)),
        "use_bias": True,
        3: "three",
    }
    assert flatten(params) == {
        "lr": 0.5,
        "dtype": "bfloat16",
        "act_fn": "tanh",
        "make": "partial",
        "sizes": "(3, 3)",
        "options/keep": 2,
        "options/inner/a": "None",
        "empty": "{}",
        "table": "float64[10, 10]",
        "use_bias": True,
        "3": "three",
    }
    assert flatten({}) == {}


def test_a_histogram_counts_every_finite_value():
    values = np.array([[1.0, 2.0], [3.0, np.inf], [np.nan, 3.0]], np.float32)
    found = histogram(values, bins=2)
    assert found.counts.tolist() == [1, 3]
    assert found.edges.tolist() == [1.0, 2.0, 3.0]
    assert (found.minimum, found.maximum, found.total, found.squares) == (1.0, 3.0, 9.0, 23.0)


@pytest.mark.parametrize("values", [[], [np.nan, np.inf]])
def test_there_is_no_histogram_without_a_finite_value(values):
    assert histogram(values) is None


def test_a_histogram_of_equal_values_holds_them_all():
    assert histogram(jnp.full((4, 5), 7, jnp.bfloat16)).counts.sum() == 20
