import functools
import json
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import checkpoint_project as project
from boltax._base._options import CheckpointOptions
from boltax.checkpoint._plain import plain, short


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.bool_(True), True),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ((1, (2,)), [1, [2]]),
        ({1: (2,)}, {"1": [2]}),
        (Path("a/b"), str(Path("a/b"))),
        (nn.relu, "relu"),
        (nn.Dense, "Dense"),
        (jnp.bfloat16, "bfloat16"),
        (np.dtype("float32"), "float32"),
        (project.Mode.FAST, "FAST"),
        (project.Widths(), {"first": 8, "rest": [4, 4]}),
        (
            CheckpointOptions(keep_best=3, every_steps=9),
            {
                "every_steps": 9,
                "every_minutes": 5,
                "every_epochs": None,
                "keep_last": 2,
                "keep_best": 3,
            },
        ),
        (np.arange(3), [0, 1, 2]),
        (np.array([math.nan]), ["nan"]),
        (np.zeros((20, 20), np.float32), "float32[20, 20]"),
        (jnp.zeros((2,), jnp.bfloat16), [0.0, 0.0]),
        (jax.random.key(0), "key<fry>[]"),
        (functools.partial(nn.relu), "partial(relu)"),
    ],
)
def test_a_value_becomes_something_to_read(value, expected):
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize("value", [optax.adam(1e-3), object(), lambda x: x, nn.Dense(3), {1, 2}])
def test_any_value_is_readable_and_the_same_each_time(value):
    text = json.dumps(plain({"value": value}), allow_nan=False)
    assert " at 0x" not in text
    assert text == json.dumps(plain({"value": value}))


def test_a_value_that_contains_itself_ends():
    value = []
    value.append(value)
    assert "..." in json.dumps(plain(value))


def test_a_short_text_is_short():
    assert len(short("x" * 1000)) <= 102
    assert len(short(list(range(1000)))) <= 102
    assert len(short({"a": np.zeros(1000)})) <= 200
