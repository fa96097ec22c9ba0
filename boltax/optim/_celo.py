"""Celo and Celo-Adam: learned optimizers that take little compute to train, and to use."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from boltax.optim._learned import Rule, check_steps, learned
from boltax.optim._learned_network import (
    MEAN_SQUARE_DECAY,
    Network,
    average,
    bank_of,
    init_moments,
    network_step,
    update_moments,
)
from boltax.optim._learned_scheduler import Memory, step_sizes
from boltax.optim._learned_weights import CELO, CELO_ADAM, Weights, load_weights

_MOMENTUM_DECAY = np.asarray([0.9], np.float32)


class AdamMoments(NamedTuple):
    """Adam's averages of a tensor's gradients, each of the tensor's shape.

    Attributes:
        momentum: of the gradient.
        mean_square: of its square.
    """

    momentum: jax.Array
    mean_square: jax.Array


def celo(
    total_steps: int, weights: str | os.PathLike[str] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Celo, the learned optimizer: no learning rate, no schedule, nothing to tune.

    A small network sets the step of every parameter, as in `velo`, and there is one such network.
    An LSTM sets the size of the step, one number for the whole model, from how the loss falls and
    how much of the run is left. Its `update` needs the loss, `value=loss`, and the parameters. It
    does its own scaling: use it without clipping, without a schedule and without decoupled decay.
    Parameters keep their dtype; it computes in float32.

    Args:
        total_steps: updates of the whole run.
        weights: the file of the trained weights, or its folder. None to look for it in the folder
            that the environment variable ``BOLTAX_LOPT_WEIGHTS`` names, and in the user's cache,
            ``~/.cache/boltax/learned_optimizers`` on Linux. boltax brings none; the guide on
            learned optimizers says where they come from.

    Raises:
        OptimizerError: without weights, with others than its own, or without a number of steps; by
            `update`, without the loss.

    References:
        Moudgil et al., Celo: Training Versatile Learned Optimizers on a Compute Diet, 2025,
        arXiv:2501.12670.

    Example:
        >>> from boltax import optim
        >>> optim.celo(total_steps=1000, weights="celo.theta.state")
        Traceback (most recent call last):
            ...
        boltax.errors.OptimizerError: Received weights='celo.theta.state' for optimizer 'celo';
        expected its trained weights, and there is no file ...
    """
    check_steps("celo", "total_steps", total_steps)
    arrays = load_weights(CELO, weights)

    def controls(memory: Memory) -> tuple[jax.Array, Network]:
        return _step_size(arrays, memory), bank_of(arrays)  # of one network

    rule = Rule("celo", arrays, init_moments, None, controls, update_moments, network_step)
    return learned(rule, total_steps)


def celo_adam(
    total_steps: int, weights: str | os.PathLike[str] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Celo-Adam: Adam, whose learning rate is set at every step by a learned scheduler.

    The scheduler of `celo`, trained with Adam (0.9, 0.999) in place of the network for each
    parameter: the memory and nearly the time of Adam. Its `update` needs the loss, `value=loss`. It
    sets its own learning rate: use it without clipping, without a schedule and without decoupled
    decay. Parameters keep their dtype; it computes in float32.

    Args:
        total_steps: updates of the whole run.
        weights: as for `celo`; its own file.

    Raises:
        OptimizerError: as `celo`.

    References:
        Moudgil et al., Celo: Training Versatile Learned Optimizers on a Compute Diet, 2025,
        arXiv:2501.12670.

    Example:
        >>> from boltax import optim
        >>> optim.celo_adam(total_steps=1000, weights="celo_adam.theta.state")
        Traceback (most recent call last):
            ...
        boltax.errors.OptimizerError: Received weights='celo_adam.theta.state' for optimizer
        'celo_adam'; expected its trained weights, and there is no file ...
    """
    check_steps("celo_adam", "total_steps", total_steps)
    arrays = load_weights(CELO_ADAM, weights)

    def controls(memory: Memory) -> jax.Array:
        return _step_size(arrays, memory)

    rule = Rule("celo_adam", arrays, _init_adam, None, controls, _update_adam, _adam_step)
    return learned(rule, total_steps)


def _step_size(weights: Weights, memory: Memory) -> jax.Array:
    """The one number of the scheduler for the whole model."""
    return 0.1 * jnp.exp(step_sizes(weights, memory))


def _init_adam(shape: tuple[int, ...]) -> AdamMoments:
    return AdamMoments(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def _update_adam(moments: AdamMoments, grad: jax.Array) -> AdamMoments:
    decays = _MOMENTUM_DECAY, MEAN_SQUARE_DECAY
    news = grad, jnp.square(grad)
    each = zip(moments, news, decays, strict=True)
    return AdamMoments(*(average(old[None], new, decay)[0] for old, new, decay in each))


def _adam_step(
    size: jax.Array, updates: jax.Array, _param: jax.Array, _grad: jax.Array, moments: AdamMoments
) -> jax.Array:
    count = updates.astype(jnp.float32)
    first, second = (1.0 - decay[0] ** count for decay in (_MOMENTUM_DECAY, MEAN_SQUARE_DECAY))
    root = jnp.sqrt(moments.mean_square / second + 1e-10)
    return (moments.momentum / first) * (0.001 * size) / (1e-8 + root)
