"""Sums in two words equal those of NumPy in int64 and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from boltax.errors import MetricsError
from boltax.metrics._totals import FloatTotal, IntTotal, total_of, total_of_mean, total_over

INTEGERS = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32]


def extremes(dtype, shape):
    """Numbers of a dtype, many of them the largest and the smallest."""
    if dtype == np.bool_:
        return np.random.default_rng(0).random(shape) < 0.9
    info, rng = np.iinfo(dtype), np.random.default_rng(0)
    values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.8, dtype(info.max), values)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(1,), (7,), (64, 1000)])
def test_integers_of_one_batch_add_up_exactly(dtype, shape):
    values = extremes(dtype, shape)
    total = jax.jit(total_over)(values)
    assert total.value() == values.astype(np.int64).sum()


def test_the_smallest_integers_add_up_exactly():
    values = np.full(100_000, -(2**31), np.int32)
    assert jax.jit(total_over)(values).value() == -(2**31) * 100_000


def test_a_batch_of_images_is_counted_exactly():
    hits = np.arange(4 * 1024 * 2048).reshape(4, 1024, 2048) % 10 != 0
    assert int(jax.jit(total_over)(hits)) == hits.sum()


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("count", [1, 2, 128, 6400, 2**20 + 1])
def test_a_mean_times_its_examples_is_exact_for_integers(dtype, count):
    values = extremes(dtype, (5,))
    total = jax.jit(lambda mean: total_of_mean(mean, count))(values)
    np.testing.assert_array_equal(total.value(), values.astype(np.int64) * count)


def test_totals_of_integers_are_exact_far_beyond_int32():
    number = 2**31 - 1

    @jax.jit
    def doubled(total):
        return lax.fori_loop(0, 22, lambda _, t: t + t, total)

    assert int(doubled(total_of(jnp.int32(number)))) == number * 2**22  # below 2**53
    assert int(doubled(total_of(jnp.int32(-number)))) == -number * 2**22
    mixed = total_of(jnp.int32(-5)) + total_of(jnp.int32(3)) + total_of(jnp.int32(2))
    assert int(mixed) == 0


def test_a_million_merges_of_a_constant_do_not_drift():
    one = total_of(jnp.float32(0.1))

    @jax.jit
    def merged(total):
        return lax.fori_loop(0, 1_000_000, lambda _, t: t + one, total)

    result = merged(FloatTotal(jnp.zeros(2))).value()
    assert result == pytest.approx(1_000_000 * np.float64(np.float32(0.1)), rel=1e-12)


def test_what_is_smaller_than_a_rounding_of_the_sum_is_not_lost():
    one = total_of(jnp.float32(1.0))
    total = jax.jit(lambda t: lax.fori_loop(0, 1000, lambda _, t: t + one, t))(
        total_of(jnp.float32(2.0**40))
    )
    assert total.value() == 2.0**40 + 1000


def test_members_add_up_as_each_alone():
    values = np.random.default_rng(0).normal(size=(5, 200)).astype(np.float32) * 1e4

    def summed(row):
        start = total_of(jnp.float32(0)), total_of(jnp.int32(0))

        def add(i, sums):
            return sums[0] + total_of(row[i]), sums[1] + total_of(row[i].astype(jnp.int32) << 20)

        return lax.fori_loop(0, 200, add, start)

    floats, ints = jax.jit(jax.vmap(summed))(values)
    np.testing.assert_allclose(floats.value(), values.astype(np.float64).sum(1), rtol=1e-10)
    shifted = (values.astype(np.int32) << 20).astype(np.int64)
    np.testing.assert_array_equal(ints.value(), shifted.sum(1))


@pytest.mark.parametrize("size", [1, 2, 31, 128, 1000, 4097, 100_000])
@pytest.mark.parametrize("kind", ["constant", "random", "wide"])
def test_floats_of_one_batch_add_up_within_a_few_roundings(size, kind):
    rng = np.random.default_rng(size)
    values = {
        "constant": np.full(size, 0.1),
        "random": rng.random(size),
        "wide": np.exp(3 * rng.normal(size=size)),
    }[kind].astype(np.float32)
    total = jax.jit(total_over)(values).value()
    assert total == pytest.approx(values.astype(np.float64).sum(), rel=3e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_adds_up_in_float32(dtype):
    values = jnp.full((50, 100), 0.1, dtype)
    expected = 5000 * np.float64(np.asarray(values)[0, 0])
    assert jax.jit(total_over)(values).value() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_what_it_is(value):
    finite = total_of(jnp.float32(2.0))
    total = jax.jit(lambda t: t + finite + finite)(total_of(jnp.float32(value)))
    np.testing.assert_equal(float(total.value()), value)


@pytest.mark.parametrize(
    "value", [2**40 + 1, -(2**40), np.int64(2**52 + 1), np.uint32(2**32 - 1), True, 0]
)
def test_integers_of_python_and_numpy_are_held_exactly(value):
    assert int(total_of(value)) == int(value)
    assert int(total_of(value) + total_of(value)) == 2 * int(value)
    assert int(total_of_mean(value, 1000)) == 1000 * int(value)


def test_floats_of_python_are_held_in_two_words():
    assert total_of(0.1).value() == pytest.approx(0.1, rel=1e-13)
    assert total_of(float("inf")).value() == np.inf


def test_with_x64_integers_and_floats_are_as_exact():
    with jax.enable_x64(True):
        values = np.array([2**40 + 3, -(2**50), 7], np.int64)
        assert int(jax.jit(total_over)(values)) == values.sum()
        assert int(jax.jit(lambda v: total_of_mean(v, 9))(values[0])) == 9 * (2**40 + 3)
        large = np.array([2**52, 2**51], np.uint64)
        assert int(jax.jit(total_over)(large)) == 2**52 + 2**51
        floats = jax.jit(total_over)(np.full(1000, 0.1))
        assert floats.words.dtype == jnp.float64
        assert (floats + floats).value() == pytest.approx(200.0, rel=1e-14)
        assert jax.jit(total_over)(np.full(10, 1, np.int32)).words.dtype == jnp.int32


def test_a_text_is_no_total():
    with pytest.raises(MetricsError, match="Received str for the loss; expected an array"):
        total_of("high", "the loss")


def test_zeros_are_the_sum_of_nothing():
    number = total_of(jnp.float32(0.1)) + total_of(jnp.float32(1e-9))
    same = FloatTotal(jnp.zeros(2)) + number
    np.testing.assert_array_equal(same.words, number.words)
    assert int(IntTotal(jnp.zeros(2, jnp.int32)) + total_of(jnp.int32(7))) == 7
