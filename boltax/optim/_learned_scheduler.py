"""The scheduler of a learned optimizer: an LSTM that sets the step size of each tensor.

Each tensor is a row; the rows meet in one place, a maximum over all of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from boltax.optim._learned_weights import Weights


class Memory(NamedTuple):
    """What the LSTM remembers of each tensor.

    Attributes:
        hidden: float32 ``[tensors, hidden]``.
        cell: float32 ``[tensors, hidden]``.
    """

    hidden: jax.Array
    cell: jax.Array


def init_memory(weights: Weights, tensors: int) -> Memory:
    """The memory before the first step."""
    names = (f"lstm_init_state/{name}" for name in Memory._fields)
    return Memory(*(jnp.tile(jnp.asarray(weights[name]), (tensors, 1)) for name in names))


def remember(weights: Weights, features: jax.Array, memory: Memory) -> Memory:
    """The memory after one more step.

    Args:
        weights: of the optimizer.
        features: float32 ``[tensors, features]``.
        memory: as it was.
    """
    of_all = jnp.max(jax.nn.relu(dense(weights, "linear_1", features)), axis=0, keepdims=True)
    inputs = dense(weights, "linear_2", features) + of_all
    gates = dense(weights, "rnn/linear", jnp.concatenate([inputs, memory.hidden], axis=1))
    write, new, keep, read = jnp.split(gates, 4, axis=1)
    cell = jax.nn.sigmoid(keep + 1.0) * memory.cell + jax.nn.sigmoid(write) * jnp.tanh(new)
    return Memory(hidden=jax.nn.sigmoid(read) * jnp.tanh(cell), cell=cell)


def step_sizes(weights: Weights, memory: Memory) -> jax.Array:
    """What the scheduler says of the size of each tensor's step, as it comes: ``[tensors]``."""
    return dense(weights, "step_size", memory.hidden)[:, 0]


def dense(weights: Weights, layer: str, inputs: jax.Array) -> jax.Array:
    """A layer of the scheduler: ``[rows, inputs] -> [rows, outputs]``."""
    kernel, bias = (jnp.asarray(weights[f"rnn_params/{layer}/{name}"]) for name in "wb")
    return matmul(inputs, kernel) + bias[None]


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    """A product in full float32: what accelerators round to by default shows in the steps."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
