"""Numbers on their way to a device of 32 bits: what does not fit is an error that names it."""

import jax
import numpy as np
import pytest

from boltax._base._narrow import device_dtype, narrowed
from boltax.errors import DataError

LIMITS = {"int64": (-(2**31), 2**31 - 1), "uint64": (0, 2**32 - 1)}


@pytest.mark.parametrize("dtype", LIMITS)
def test_integers_that_fit_stay_what_they_are(dtype):
    array = np.array(LIMITS[dtype], dtype)
    narrow = narrowed({"x": array}, "a batch")["x"]
    assert narrow.dtype == dtype.replace("64", "32")
    assert narrow.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2**40, "int64"),
        (2**31, "int64"),
        (-(2**31) - 1, "int64"),
        (2**32, "uint64"),
        (1e39, "float64"),
        (-1e300, "float64"),
        (complex(0, 1e40), "complex128"),
    ],
)
def test_a_number_that_does_not_fit_is_named_with_its_leaf(value, dtype):
    batch = {"y": np.zeros(3, np.int32), "x": [np.zeros(2, dtype), np.array([3, value], dtype)]}
    with pytest.raises(DataError) as raised:
        narrowed(batch, "batch 3 of epoch 1")
    message = str(raised.value)
    assert message.startswith(f"Received batch 3 of epoch 1 with batch['x'][1]: {dtype}[2], which ")
    assert f"holds {np.array(value, dtype).item()!r};" in message


def test_numbers_that_are_not_finite_stay_as_they_are():
    array = np.array([np.inf, -np.inf, np.nan, 1e38, 1e-300])
    np.testing.assert_array_equal(
        narrowed(array, "a batch"), np.array([np.inf, -np.inf, np.nan, 1e38, 0], np.float32)
    )


def test_what_is_narrow_already_is_handed_on():
    for leaf in (np.zeros(2, np.float16), np.zeros(0, np.int32), jax.numpy.zeros(2)):
        assert narrowed(leaf, "a batch") is leaf
    assert narrowed(np.zeros((0, 2), np.int64), "a batch").dtype == np.int32


def test_with_64_bits_everything_fits():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        assert device_dtype(np.dtype("int64")) == np.int64
        assert narrowed(np.array([2**40]), "a batch")[0] == 2**40
    assert device_dtype(np.dtype("int64")) == np.int32
