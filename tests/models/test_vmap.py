"""A model of one example over a batch: keys, shared inputs, and what does not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.errors import ModelError
from boltax.models._adapter import adapt
from boltax.models._view import ModelView
from boltax.models._vmap import Vmap
from model_dummies import INPUTS

KEY = jax.random.key(0)


class Shifted(eqx.Module):
    """An example and a number that all of them share."""

    weight: jax.Array

    def __init__(self, *, key):
        self.weight = jax.random.normal(key, (4,))

    def __call__(self, x, shift, *, noise=0.0, key):
        return (x + shift) @ self.weight + jax.random.uniform(key) * noise


class Private(eqx.Module):
    """State that each example would have of its own."""

    index: eqx.nn.StateIndex

    def __init__(self, *, key):
        self.index = eqx.nn.StateIndex(jnp.zeros(4))

    def __call__(self, x, state):
        return x, state.set(self.index, x)


def viewed(vmap, train=True):
    adapter = adapt(vmap, {})
    return ModelView(adapter, adapter.empty(KEY), KEY, train=train)


def test_inputs_may_be_shared_and_each_example_has_a_key() -> None:
    view = viewed(Vmap(Shifted, in_axes=(0, None)))
    weight = np.asarray(view.params["weight"])
    plain = view(INPUTS, jnp.float32(2))
    np.testing.assert_allclose(plain, (np.asarray(INPUTS) + 2) @ weight, rtol=1e-5)
    noise = view(INPUTS, jnp.float32(2), noise=1.0) - plain
    assert len(set(np.round(np.asarray(noise), 5))) == 6


def test_another_axis_may_be_that_of_the_examples() -> None:
    view = viewed(Vmap(Shifted, in_axes=(1, None)))
    expected = viewed(Vmap(Shifted, in_axes=(0, None)))(INPUTS, jnp.float32(1))
    np.testing.assert_allclose(view(INPUTS.T, jnp.float32(1)), expected, rtol=1e-6)


def test_calls_that_do_not_fit_are_told() -> None:
    with pytest.raises(ModelError, match=r"with 2 positional inputs; expected 3"):
        viewed(Vmap(Shifted, in_axes=(0, None, 0)))(INPUTS, jnp.float32(1))
    with pytest.raises(ModelError, match=r"without an array to map over"):
        viewed(Vmap(Shifted, in_axes=None))(INPUTS, jnp.float32(1))


def test_state_of_single_examples_is_explained() -> None:
    with pytest.raises(ValueError, match="out_axes") as error:
        viewed(Vmap(Private))(INPUTS)
    assert any("same for all examples" in note for note in error.value.__notes__)
