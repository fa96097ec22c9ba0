"""VeLO: an optimizer that was trained on many tasks, and tunes itself to each."""

import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from boltax._base._types import PyTree
from boltax.optim._adapt import requiring
from boltax.optim._learned import Rule, check_steps, given, learned, loss_of
from boltax.optim._learned_features import tensor_features
from boltax.optim._learned_network import (
    Moments,
    Network,
    bank_of,
    init_moments,
    mixed,
    network_step,
    update_moments,
)
from boltax.optim._learned_scheduler import Memory, dense, step_sizes
from boltax.optim._learned_weights import VELO, load_weights

_BANK_SCALE = 100.0


def velo(
    total_steps: int,
    weights: str | os.PathLike[str] | None = None,
    *,
    max_training_steps: int = 150_000,
) -> optax.GradientTransformationExtraArgs:
    """VeLO, the learned optimizer: no learning rate, no schedule, nothing to tune.

    A small network sets the step of every parameter; an LSTM for each tensor mixes that network out
    of a bank, from how the loss falls, how much of the run is left, and the tensor's statistics.
    Its `update` needs the loss, `value=loss`, and the parameters. It does its own scaling: use it
    without clipping, without a schedule and without decoupled decay. Parameters keep their dtype;
    it computes in float32.

    Args:
        total_steps: updates of the whole run.
        weights: the file of the trained weights, or its folder. None to look for it in the folder
            that the environment variable ``BOLTAX_LOPT_WEIGHTS`` names, and in the user's cache,
            ``~/.cache/boltax/learned_optimizers`` on Linux. boltax brings none; the guide on
            learned optimizers says where they come from.
        max_training_steps: the longest run that it can plan for. Of a longer one it makes no more
            steps than this: it averages the gradients and losses of several updates and steps once.

    Raises:
        OptimizerError: without weights, with others than its own, or without a number of steps; by
            `update`, without the loss.

    References:
        Metz et al., VeLO: Training Versatile Learned Optimizers by Scaling Up, 2022,
        arXiv:2211.09760.

    Example:
        >>> from boltax import optim
        >>> optim.velo(total_steps=1000, weights="velo.params")
        Traceback (most recent call last):
            ...
        boltax.errors.OptimizerError: Received weights='velo.params' for optimizer 'velo'; expected
        its trained weights, and there is no file ...
    """
    check_steps("velo", "total_steps", total_steps)
    check_steps("velo", "max_training_steps", max_training_steps)
    arrays = load_weights(VELO, weights)

    def features(param: jax.Array, moments: Moments) -> dict[str, jax.Array]:
        return tensor_features(param, moments.momentum, moments.mean_square)

    def controls(memory: Memory) -> tuple[jax.Array, Network]:
        of_bank = dense(arrays, "rnn_to_controls", memory.hidden)
        of_bank *= _BANK_SCALE / of_bank.shape[1]
        return step_sizes(arrays, memory), mixed(bank_of(arrays), of_bank)

    rule = Rule("velo", arrays, init_moments, features, controls, update_moments, network_step)
    every = math.ceil(total_steps / max_training_steps)
    tx = learned(rule, total_steps // every)
    return tx if every == 1 else _averaging(tx, every)


class AveragingState(NamedTuple):
    """The state of an optimizer that steps once for several updates.

    Attributes:
        updates: since the last step, an int32 scalar.
        grads: the sum of their gradients, float32.
        loss: the sum of their losses, a float32 scalar.
        inner: the optimizer's own state.
    """

    updates: jax.Array
    grads: PyTree
    loss: jax.Array
    inner: Any


def _averaging(
    tx: optax.GradientTransformationExtraArgs, every: int
) -> optax.GradientTransformationExtraArgs:
    """`tx` with the mean gradient and loss of so many updates; between its steps nothing moves.

    `optax.MultiSteps` would hand it the last loss and not the mean.
    """

    def init(params: PyTree) -> AveragingState:
        zeros = jax.tree.map(lambda param: jnp.zeros(jnp.shape(param), jnp.float32), params)
        return AveragingState(
            jnp.zeros((), jnp.int32), zeros, jnp.zeros((), jnp.float32), tx.init(params)
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree, AveragingState]:
        grads = jax.tree.map(lambda old, new: old + new.astype(jnp.float32), state.grads, updates)
        loss = state.loss + loss_of("velo", value)
        summed = AveragingState(state.updates + 1, grads, loss, inner=None)

        def step() -> tuple[PyTree, AveragingState]:
            mean = jax.tree.map(lambda grad: grad / every, grads)
            changes, inner = tx.update(mean, state.inner, params, value=loss / every)
            return changes, _zeros(summed)._replace(inner=inner)

        def wait() -> tuple[PyTree, AveragingState]:
            return _zeros(given("velo", params)), summed._replace(inner=state.inner)

        return jax.lax.cond(summed.updates == every, step, wait)

    return requiring(optax.GradientTransformationExtraArgs(init, update), "velo", ("value",))


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)
