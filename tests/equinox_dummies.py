"""Small Equinox models of every kind that the adapter has to serve."""

import equinox as eqx
import jax
import jax.numpy as jnp


class EqxNormDropout(eqx.Module):
    """BatchNorm and dropout of one example, by the mode of the module."""

    dense: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, features: int = 3, mode: str = "ema", *, key):
        first, second = jax.random.split(key)
        self.dense = eqx.nn.Linear(4, 8, key=first)
        self.norm = eqx.nn.BatchNorm(8, "batch", momentum=0.5, mode=mode)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(8, features, key=second)

    def __call__(self, x, state, *, key):
        x, state = self.norm(self.dense(x), state)
        return self.head(self.dropout(x, key=key)), state


class EqxBatched(eqx.Module):
    """Takes batches, counts its calls, draws noise, and asks for its mode by an argument."""

    weight: jax.Array
    bias: jax.Array
    order: jax.Array
    calls: eqx.nn.StateIndex
    size: int = eqx.field(static=True)

    def __init__(self, size: int, *, key):
        self.weight = jax.random.normal(key, (4, size))
        self.bias = jnp.zeros(size)
        self.order = jax.random.permutation(key, size)
        self.calls = eqx.nn.StateIndex(jnp.zeros((), jnp.int32))
        self.size = size

    def __call__(self, x, state, *, key, train=True):
        x = self.encode(x)
        if train:
            x = x + jax.random.normal(key, x.shape)
        return x, state.set(self.calls, state.get(self.calls) + 1)

    def encode(self, x):
        return (x @ self.weight + self.bias[None])[:, self.order]


def eqx_blocks(depth: int, *, key):
    """A function that makes a model of more than ten layers."""
    keys = jax.random.split(key, depth)
    layers = [eqx.nn.Linear(4, 4, key=keys[n]) for n in range(depth)]
    return eqx.nn.Sequential([*layers, eqx.nn.Lambda(jax.nn.relu), layers[0]])
