"""Plain functions as models, with parameters of every kind of container."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.example_libraries import stax

from boltax.models._functional import Functional


class Layer(NamedTuple):
    weight: jax.Array
    bias: jax.Array


@struct.dataclass
class Net:
    """A registered dataclass of named tuples, with a part that is empty."""

    layers: tuple[Layer, ...]
    nothing: tuple = ()


def layer(key, size, width):
    return Layer(jax.random.normal(key, (size, width)), jnp.zeros(width))


def net_init(key, width=5):
    first, last = jax.random.split(key)
    return Net((layer(first, 4, width), layer(last, width, 3)))


def net(params, x):
    """Of one example."""
    first, last = params.layers
    return jax.nn.relu(x @ first.weight + first.bias) @ last.weight + last.bias


def noisy_init(key, x):
    return [layer(key, x.shape[-1], 3)], {"calls": 0, "mean": (jnp.zeros(3),)}


def noisy(params, state, key, x, *, train):
    """State, a key before the inputs as in Haiku, and a mode."""
    x = x @ params[0].weight + params[0].bias[None]
    if not train:
        return x, state
    new = {"calls": state["calls"] + 1, "mean": (x.mean(0),)}
    return x + jax.random.normal(key, x.shape), new


NET = Functional(net_init, net)
NOISY = Functional(noisy_init, noisy)
STAX = Functional(*stax.serial(stax.Dense(5), stax.Relu, stax.Dense(3)))
