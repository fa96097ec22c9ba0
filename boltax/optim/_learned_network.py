"""The network of VeLO and Celo that makes a step for each parameter, from 30 numbers about it.

Arrays of one tensor have their channels on the first axis, ``[channels, *shape]``: with them on
the last one, an accelerator would pad each three of them to a whole row of its memory.
"""

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from boltax.optim._learned_scheduler import matmul
from boltax.optim._learned_weights import CHANNELS, Weights

MOMENTUM_DECAYS = np.asarray([0.9, 0.99, 0.999], np.float32)
MEAN_SQUARE_DECAY = np.asarray([0.999], np.float32)
FACTOR_DECAYS = np.asarray([0.9, 0.99, 0.999], np.float32)


class SecondMoment(NamedTuple):
    """Averages of the squared gradient of a tensor, as Adafactor keeps them.

    Attributes:
        row: over its largest axis, which has length 1; None for tensors of less than two axes.
        column: over its second largest axis, as well.
        whole: of each parameter, for tensors of less than two axes; None for others.
    """

    row: jax.Array | None
    column: jax.Array | None
    whole: jax.Array | None


class Moments(NamedTuple):
    """Averages of a tensor's gradients.

    Attributes:
        momentum: of the gradient, ``[3, *shape]``.
        mean_square: of its square, ``[1, *shape]``.
        second: of its square again, in less memory, ``[3, ...]``.
    """

    momentum: jax.Array
    mean_square: jax.Array
    second: SecondMoment


def init_moments(shape: tuple[int, ...]) -> Moments:
    """The averages before the first gradient."""

    def zeros(channels: int, *without: int) -> jax.Array:
        sizes = (1 if axis in without else size for axis, size in enumerate(shape, start=1))
        return jnp.zeros((channels, *sizes), jnp.float32)

    factors = len(FACTOR_DECAYS)
    if len(shape) < 2:
        second = SecondMoment(None, None, zeros(factors))
    else:
        second_largest, largest = _largest_axes(shape)
        second = SecondMoment(zeros(factors, largest), zeros(factors, second_largest), None)
    return Moments(zeros(len(MOMENTUM_DECAYS)), zeros(len(MEAN_SQUARE_DECAY)), second)


def update_moments(moments: Moments, grad: jax.Array) -> Moments:
    """The averages with one more gradient, ``[1, *shape]``."""
    square = jnp.square(grad)
    row, column, whole = moments.second
    if whole is not None:
        whole = average(whole, square + 1e-30, FACTOR_DECAYS)
    elif row is not None and column is not None:
        second_largest, largest = _largest_axes(grad.shape[1:])
        over = functools.partial(jnp.mean, square + 1e-30, keepdims=True)
        row = average(row, over(axis=largest), FACTOR_DECAYS)
        column = average(column, over(axis=second_largest), FACTOR_DECAYS)
    return Moments(
        momentum=average(moments.momentum, grad, MOMENTUM_DECAYS),
        mean_square=average(moments.mean_square, square, MEAN_SQUARE_DECAY),
        second=SecondMoment(row, column, whole),
    )


def _largest_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The second largest and the largest axis of a tensor whose channels stand before them.

    Of equal axes the later one counts as larger, on every machine.
    """
    order = np.argsort(shape, kind="stable") + 1
    return int(order[-2]), int(order[-1])


def average(old: jax.Array, new: jax.Array, decays: np.ndarray) -> jax.Array:
    """One step of an average for each decay rate, along the first axis."""
    decay = decays.reshape(-1, *[1] * (new.ndim - 1))
    return jnp.asarray(decay) * old + jnp.asarray(np.float32(1.0) - decay) * new


class Network(NamedTuple):
    """The weights of a network, with further axes in front where they are those of several."""

    w0: jax.Array
    b0: jax.Array
    w1: jax.Array
    b1: jax.Array
    w2: jax.Array
    b2: jax.Array


def bank_of(weights: Weights) -> Network:
    """The networks of a file of weights: ``[bank, ...]`` each."""
    of_file = {name: jnp.asarray(weights[f"ff_mod_stack/~/{name}"]) for name in Network._fields[1:]}
    first = [weights[f"ff_mod_stack/~/w0__{k}"] for k in range(len(CHANNELS))]
    return Network(jnp.concatenate(first, axis=1), **of_file)


def mixed(bank: Network, controls: jax.Array) -> Network:
    """For each tensor a network between those of the bank: ``[tensors, ...]`` each.

    Args:
        bank: arrays ``[bank, ...]``.
        controls: how much of each a tensor gets, ``[tensors, bank]``.
    """
    columns = jnp.concatenate([part.reshape(part.shape[0], -1) for part in bank], axis=1)
    rows = matmul(controls, columns)
    ends = np.cumsum([part[0].size for part in bank])[:-1]
    flat = jnp.split(rows, ends, axis=1)
    return Network(*(x.reshape(-1, *part.shape[1:]) for x, part in zip(flat, bank, strict=True)))


def network_step(
    controls: tuple[jax.Array, Network],
    _: jax.Array,
    param: jax.Array,
    grad: jax.Array,
    moments: Moments,
) -> jax.Array:
    """The step that a network makes for each parameter of a tensor.

    The network is written out channel by channel: so it is one loop over the parameters, which
    needs no memory, where a product of matrices would store 30 numbers for each of them.

    Args:
        controls: the size of the tensor's step, a scalar, and its network.
        _: updates so far, which count for nothing.
        param: ``[1, *shape]``.
        grad: ``[1, *shape]``.
        moments: with this gradient in them.

    Returns:
        What is subtracted, ``[*shape]``; in proportion to the root mean square of the tensor.
    """
    size, network = controls
    channels = [channel for x in _inputs(param, grad, moments) for channel in _normalised(x)]
    hidden = [jax.nn.relu(x) for x in _layer(channels, network.w0, network.b0)]
    hidden = [jax.nn.relu(x) for x in _layer(hidden, network.w1, network.b1)]
    direction, log_size = _layer(hidden, network.w2, network.b2)[:2]
    norm = jnp.sqrt(jnp.mean(jnp.square(param)) + 1e-9)
    return direction * jnp.exp(0.001 * log_size) * (0.001 * size * norm)


def _inputs(param: jax.Array, grad: jax.Array, moments: Moments) -> list[jax.Array]:
    """The 14 inputs; those that are equal along an axis have length 1 there."""
    momentum, mean_square, second = moments
    rms = jax.lax.rsqrt(mean_square + 1e-6)
    if second.row is None or second.column is None:
        row = column = whole = cast("jax.Array", second.whole)
        scaled = grad * jax.lax.rsqrt(jnp.maximum(whole + 1e-9, 1e-9))
        averaged = momentum * jax.lax.rsqrt(whole)
    else:
        row, column = second.row, second.column
        mean = jnp.mean(row, axis=_largest_axes(grad.shape[1:])[0], keepdims=True)
        row_factor = jax.lax.rsqrt(jnp.maximum(row / (mean + 1e-9), 1e-9))
        column_factor = jax.lax.rsqrt(jnp.maximum(column, 1e-9))
        scaled = grad * row_factor * column_factor
        averaged = momentum * row_factor * column_factor
    return [
        grad,
        jnp.clip(grad, -0.1, 0.1),
        param,
        momentum,
        mean_square,
        momentum * rms,
        rms,
        scaled,
        grad * rms,
        row,
        column,
        jax.lax.rsqrt(row + 1e-8),
        jax.lax.rsqrt(column + 1e-8),
        averaged,
    ]


def _normalised(x: jax.Array) -> jax.Array:
    """Each channel over its root mean square."""
    axes = tuple(range(1, x.ndim))
    return x * jax.lax.rsqrt(1e-5 + jnp.mean(jnp.square(x), axes, keepdims=True))


def _layer(inputs: list[jax.Array], weights: jax.Array, bias: jax.Array) -> list[jax.Array]:
    """Sums of the inputs, for each output, by weights ``[inputs, outputs]``."""
    return [
        functools.reduce(
            jnp.add, [w * x for w, x in zip(column, inputs, strict=True)], bias[output]
        )
        for output, column in enumerate(weights.T)
    ]
