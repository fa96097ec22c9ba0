"""Flat names of a model's variables."""

import jax
import numpy as np
import pytest

from boltax._export._weights import flat_weights
from boltax.errors import ModelError


def test_random_keys_are_their_data_and_come_back():
    variables = {"params": [np.ones(2), None], "streams": {"key": jax.random.key(3)}}
    flat, back = flat_weights(variables)
    assert {name: value.shape for name, value in flat.items()} == {
        "params/0": (2,),
        "streams/key": (2,),
    }
    again = back(flat)
    assert again["params"][1] is None
    assert again["streams"]["key"] == jax.random.key(3)


def test_two_arrays_of_one_name_are_refused():
    with pytest.raises(ModelError, match="both called params/a/b"):
        flat_weights({"params": {"a": {"b": np.ones(1)}, "a/b": np.ones(1)}})
