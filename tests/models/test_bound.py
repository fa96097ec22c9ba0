"""Models with their parameters: they evaluate, whatever their defaults are."""

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.models._adapter import adapt
from boltax.models._bound import BoundModel
from model_dummies import Autoencoder, NormDropout

KEY, INPUTS = jax.random.key(0), jnp.ones((4, 4))


def init(model: nn.Module):
    return jax.jit(model.init)({"params": KEY, "dropout": KEY}, INPUTS)


class Nested(nn.Module):
    """Submodules that train by default, one of them in a list."""

    def setup(self):
        self.block = NormDropout()
        self.blocks = [NormDropout()]

    def __call__(self, x, train=True):
        return self.block(x, train) + self.blocks[0](x, train)

    def features(self, x, train=True):
        return self.block(x, train)


@pytest.fixture
def nested() -> BoundModel:
    model = Nested()
    return adapt(model, {}).bind(init(model))


def test_methods_and_submodules_evaluate(nested: BoundModel) -> None:
    expected = nested.block.unwrapped(INPUTS, train=False)
    np.testing.assert_array_equal(nested.block(INPUTS), expected)
    np.testing.assert_array_equal(nested.features(INPUTS), expected)
    assert nested.blocks[0](INPUTS).shape == (4, 3)
    assert nested(INPUTS).shape == (4, 3)


def test_training_has_to_be_asked_for(nested: BoundModel) -> None:
    with pytest.raises(Exception, match=r"dropout|batch_stats"):
        nested(INPUTS, train=True)


def test_attributes_are_those_of_the_module(nested: BoundModel) -> None:
    assert set(nested.variables) == {"params", "batch_stats"}
    assert {"features", "block", "unwrapped"} <= set(dir(nested))
    assert repr(nested).startswith("BoundModel(Nested(")
    assert copy.copy(nested)(INPUTS).shape == (4, 3)
    with pytest.raises(AttributeError, match="nothing"):
        _ = nested.nothing


def test_an_encoder_is_reached_by_name() -> None:
    model = Autoencoder()
    bound = adapt(Autoencoder, {}).bind(init(model))
    codes = bound.encoder(INPUTS)
    np.testing.assert_array_equal(bound.encode(INPUTS), codes)
    np.testing.assert_array_equal(bound(INPUTS), bound.decode(codes))


class Sampler(nn.Module):
    """Draws in evaluation."""

    @nn.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


def test_a_model_that_draws_takes_keys() -> None:
    bound = adapt(Sampler, {}).bind({}, rngs={"noise": KEY})
    assert np.any(bound(INPUTS) != INPUTS)
