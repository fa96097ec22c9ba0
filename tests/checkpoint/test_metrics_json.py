import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.errors import CheckpointError


def test_metrics_come_back_as_floats_and_arrays():
    metrics = {
        "val/loss": 0.1,
        "val/acc": np.float32(0.1),
        "val/count": 3,
        "val/jax": jnp.array(0.5, jnp.bfloat16),
        "val/confusion": np.array([[1, 2], [3, 4]]),
        "val/per_class": np.array([0.5, math.nan]),
    }
    stored = json.loads(json.dumps(plain_metrics(metrics), allow_nan=False))
    loaded = read_metrics(stored)
    assert loaded["val/loss"] == 0.1
    assert loaded["val/acc"] == float(np.float32(0.1))
    assert loaded["val/count"] == 3
    assert loaded["val/jax"] == 0.5
    assert np.array_equal(loaded["val/confusion"], [[1, 2], [3, 4]])
    assert np.array_equal(loaded["val/per_class"], [0.5, math.nan], equal_nan=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_that_are_not_finite_are_words(value):
    stored = plain_metrics({"val/loss": value})
    assert json.dumps(stored, allow_nan=False) == json.dumps({"val/loss": str(value)})
    assert repr(read_metrics(stored)["val/loss"]) == repr(value)


def test_plain_metrics_stay_as_they_are():
    once = plain_metrics({"a": math.nan, "b": [1.0, "nan"], "c": None})
    assert plain_metrics(once) == once


def test_large_arrays_are_kept_whole():
    assert len(plain_metrics({"confusion": np.eye(100)})["confusion"]) == 100


@pytest.mark.parametrize("value", [{"a": 1}, [[1], [1, 2]], [{"a": 1}]])
def test_other_values_are_refused(value):
    with pytest.raises(CheckpointError, match="the metric 'val/x'"):
        read_metrics({"val/x": value})
