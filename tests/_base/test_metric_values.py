import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._metric_values import check_metric_values
from boltax.errors import MetricsError

METRICS = [
    0.5,
    3,
    True,
    2**80,
    float("nan"),
    np.float32(1),
    np.arange(3),
    jnp.ones(2, jnp.bfloat16),
]
METRICS += [jnp.int32(3), [1.0, 2.0], (1, 2), np.bool_(True), np.ones((2, 2), np.uint8)]


@pytest.mark.parametrize("value", METRICS, ids=repr)
def test_numbers_and_arrays_of_numbers_are_metrics(value):
    assert check_metric_values({"x": value}, "here") is None


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("good", r"Log\(text={'x': \.\.\.}\)"),
        (np.str_("good"), "for text"),
        (None, "Leave it out where there is no value"),
        ({"a": 1.0}, "such as 'x/a'"),
        ({}, "such as 'x/a'"),
        (1j, r"Write float\(x\)"),
        (["a"], r"Write float\(x\)"),
        ([[1], [1, 2]], r"Write float\(x\)"),
        (slice(1), r"Write float\(x\)"),
        (2**1100, r"Write float\(x\)"),
        (np.array(["a"]), r"Write float\(x\)"),
    ],
    ids=repr,
)
def test_all_else_is_an_error_that_names_the_metric(value, advice):
    with pytest.raises(MetricsError, match=rf"metric 'x' = (.|\n)* from here; .*{advice}"):
        check_metric_values({"good": 0.5, "x": value}, "here")
