"""Layers computed again: the same numbers, more operations, and less that is kept."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.ad_checkpoint import saved_residuals

from boltax.errors import ConfigurationError
from boltax.models import Functional
from boltax.models._adapter import adapt
from boltax.models._remat import in_layers, layers_of

WIDTH, DEPTH, BATCH = 8, 2, 4
INPUTS = np.linspace(-1, 1, BATCH * WIDTH, dtype=np.float32).reshape(BATCH, WIDTH)


class Block(nn.Module):
    """With all that a layer may have: statistics, dropout, an argument that is no array."""

    @nn.compact
    def __call__(self, x, train):
        h = nn.gelu(nn.Dense(4 * WIDTH)(x))
        h = nn.Dropout(0.5, deterministic=not train)(h)
        h = nn.BatchNorm(use_running_average=not train)(h)
        return x + nn.Dense(WIDTH)(nn.gelu(h))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        for _ in range(DEPTH):
            x = Block()(x, train)
        return nn.Dense(1)(x)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.up, self.down = (nnx.Linear(*n, rngs=rngs) for n in ((WIDTH, 32), (32, WIDTH)))
        self.norm, self.drop = nnx.BatchNorm(32, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.gelu(self.norm(self.drop(nnx.gelu(self.up(x))))))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(DEPTH)])
        self.head = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def keys(name):
    return jax.random.key(len(name))


def variables_of(adapter):
    variables = adapter.empty(jax.random.key(0))
    return adapter.apply(variables, (INPUTS,), {}, train=True, keys=keys, initializing=True)[1]


def loss_of(adapter, variables):
    def loss(params):
        outputs, after = adapter.apply(
            {**variables, "params": params}, (INPUTS,), {}, train=True, keys=keys
        )
        return (outputs**2).mean(), after["batch_stats"]

    return loss


def kept(loss, params):
    """Bytes of what the backward pass finds of the forward one, without the parameters."""
    found = saved_residuals(lambda p: loss(p)[0], params)
    return sum(form.size * 4 for form, why in found if "argument" not in why)


@pytest.mark.parametrize("model", [Linen, Nnx])
def test_numbers_and_statistics_are_those_without(model):
    adapter = adapt(model, {})
    variables = variables_of(adapter)
    params, plain = variables["params"], loss_of(adapter, variables)
    expected = jax.jit(jax.value_and_grad(plain, has_aux=True))(params)
    full = loss_of(in_layers(adapter, "full"), variables)
    found = jax.jit(jax.value_and_grad(full, has_aux=True))(params)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    dots = loss_of(in_layers(adapter, "dots_saveable"), variables)
    assert kept(full, params) < kept(dots, params) < kept(plain, params)
    assert kept(full, params) < kept(plain, params) / 3
    assert str(jax.make_jaxpr(full)(params)).count("remat") == DEPTH


def test_a_call_without_gradients_is_left_alone():
    adapter = adapt(Linen, {})
    variables = variables_of(adapter)
    again = in_layers(adapter, "full")

    def evaluated(variables):
        return again.apply(variables, (INPUTS,), {}, train=False, keys=keys)[0]

    assert "remat" not in str(jax.make_jaxpr(evaluated)(variables))
    assert NnxBlock.__call__.__name__ == "__call__"
    assert in_layers(adapter, None) is adapter
    assert in_layers(adapter, "auto") is adapter


def test_layers_are_the_outermost_modules_that_stand_beside_others_like_them():
    block = {"attention": {"query": {"kernel": 0}, "key": {"kernel": 0}}, "norm": {"scale": 0}}
    params = {"body": {"0": block, "1": block}, "head": {"kernel": 0}}
    assert layers_of(params) == [("body", "0"), ("body", "1")]
    assert layers_of({"one": {"dense": {"kernel": 0}}}) == [("one",)]
    assert layers_of({"kernel": 0}) == []


def test_a_model_whose_layers_are_not_seen_is_refused():
    model = Functional(lambda key: {"w": jnp.ones(3)}, lambda params, x: x @ params["w"])
    with pytest.raises(ConfigurationError, match=r"whose layers boltax does not see.*jax\.check"):
        in_layers(adapt(model, {}), "full")
