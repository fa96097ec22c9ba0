"""Dropout with a traced rate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.models import dropout


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_it_draws_what_flax_draws(rate):
    inputs, key = jnp.arange(1.0, 101.0), jax.random.key(3)
    expected = nn.Dropout(rate, deterministic=False).apply({}, inputs, rng=key)
    np.testing.assert_allclose(jax.jit(dropout)(inputs, rate, key), expected, rtol=1e-6)


def test_one_program_serves_all_rates():
    traces = []

    @jax.jit
    def run(rate):
        traces.append(rate)
        return dropout(jnp.ones(1000, jnp.bfloat16), rate, jax.random.key(0))

    kept = [float((run(rate) > 0).mean(dtype=jnp.float32)) for rate in (0.0, 0.3, 1.0)]
    np.testing.assert_allclose(kept, [1.0, 0.7, 0.0], atol=0.05)
    assert len(traces) == 1
    assert run(0.5).dtype == jnp.bfloat16


def test_gradients_are_finite_at_every_rate():
    grad = jax.grad(lambda x, rate: dropout(x, rate, jax.random.key(0)).sum())
    assert all(np.isfinite(grad(jnp.ones(8), rate)).all() for rate in (0.0, 0.5, 1.0))
