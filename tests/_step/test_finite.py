"""Whether arrays are finite, as NumPy says it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._step._finite import are_finite, inexact_variables

BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_it_is_what_numpy_says(dtype):
    good = np.linspace(-3e4, 3e4, 24).reshape(2, 3, 4)
    arrays = [good, np.zeros(()), np.zeros((0, 3)), np.full(5, 6e4)]
    for value in BAD:
        bad = good.copy()
        bad[1, 2, 3] = value
        arrays += [bad, np.asarray(value)]
    if dtype == "complex64":
        arrays += [good * 1j, np.asarray([1.0, complex(0.0, np.nan)])]
    told = jax.jit(are_finite)([jnp.asarray(array, dtype) for array in arrays])
    assert [bool(flag) for flag in told] == [bool(np.isfinite(array).all()) for array in arrays]


def test_the_largest_numbers_are_finite():
    largest = np.full(1000, np.finfo(np.float32).max)
    assert bool(jax.jit(are_finite)([jnp.asarray(largest), jnp.asarray(-largest)])[1])


def test_of_members_it_is_said_for_each():
    group = np.ones((3, 4), np.float32)
    group[1, 2] = np.inf
    (told,) = jax.jit(jax.vmap(are_finite))([jnp.asarray(group)])
    np.testing.assert_array_equal(told, [True, False, True])


def test_a_state_of_the_users_is_looked_at_as_it_is():
    found = inexact_variables({"generator": {"w": jnp.ones(2)}, "n": jnp.zeros((), jnp.int32)})
    assert list(found) == ["generator/w"]
