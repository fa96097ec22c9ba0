"""What VeLO, Celo and Celo-Adam have in common: a scheduler, and a rule for each tensor.

An update goes one way: loss -> trend -> features -> scheduler's memory -> a rule for each tensor,
which turns its gradient into a step. All of it is computed in float32, whatever the parameters are.
"""

import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from boltax._base._trees import describe_leaf, path_name
from boltax._base._types import PyTree
from boltax.errors import OptimizerError
from boltax.optim._adapt import requiring
from boltax.optim._learned_features import (
    LossTrend,
    init_trend,
    loss_features,
    time_features,
    update_trend,
)
from boltax.optim._learned_scheduler import Memory, init_memory, remember
from boltax.optim._learned_weights import Weights

_LARGEST_GRADIENT = 1000.0


class LearnedState(NamedTuple):
    """The state of a learned optimizer.

    Attributes:
        updates: completed updates, an int32 scalar.
        trend: averages of the loss.
        memory: of the scheduler.
        moments: averages of the gradients; for each parameter what the tensor's rule keeps.
    """

    updates: jax.Array
    trend: LossTrend
    memory: Memory
    moments: PyTree


@dataclass(frozen=True)
class Rule:
    """How a learned optimizer turns the gradient of a tensor into a step.

    Arrays of a tensor have its channels on the first axis; parameter and gradient have one,
    ``[1, *shape]``.

    Attributes:
        name: of the optimizer.
        weights: its trained arrays.
        init: the moments of a tensor of this shape, before its first gradient.
        features: ``(param, moments) -> vectors by name``, what the scheduler sees of a tensor
            beside loss and time. None where it sees nothing more: all tensors are alike to it then,
            and one row stands for all.
        controls: ``memory -> arrays [rows, ...]``, what the scheduler says to each tensor.
        accumulate: ``(moments, grad) -> moments`` with one more gradient.
        step: ``(controls, updates, param, grad, moments) -> [*shape]``, what is subtracted from the
            tensor. `updates` counts this one, and `moments` has this gradient.
    """

    name: str
    weights: Weights
    init: Callable[[tuple[int, ...]], Any]
    features: Callable[[jax.Array, Any], dict[str, jax.Array]] | None
    controls: Callable[[Memory], Any]
    accumulate: Callable[[Any, jax.Array], Any]
    step: Callable[..., jax.Array]


def learned(rule: Rule, total_steps: int) -> optax.GradientTransformationExtraArgs:
    """The transformation of a rule for a run of so many steps."""

    def init(params: PyTree) -> LearnedState:
        _check_params(rule.name, params)
        rows = 1 if rule.features is None else len(jax.tree.leaves(params))
        return LearnedState(
            updates=jnp.zeros((), jnp.int32),
            trend=init_trend(total_steps),
            memory=init_memory(rule.weights, rows),
            moments=jax.tree.map(lambda param: rule.init(jnp.shape(param)), params),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, value: Any = None, **_: Any
    ) -> tuple[PyTree, LearnedState]:
        leaves, structure = jax.tree.flatten(given(rule.name, params))
        if not leaves:
            return updates, state
        wide = [_wide(leaf) for leaf in leaves]
        grads = [
            jnp.clip(_wide(grad), -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
            for grad in structure.flatten_up_to(updates)
        ]
        moments = structure.flatten_up_to(state.moments)
        done = state.updates + 1
        trend = update_trend(state.trend, loss_of(rule.name, value), state.updates)
        shared = {
            "fraction_left": time_features(state.updates, total_steps),
            "loss_features": loss_features(trend, done),
        }
        memory = remember(rule.weights, _rows(rule, shared, wide, moments), state.memory)

        def change(
            controls: Any, param: jax.Array, grad: jax.Array, moments: Any
        ) -> tuple[jax.Array, Any]:
            moments = rule.accumulate(moments, grad)
            return -rule.step(controls, done, param, grad, moments), moments

        controls = _for_each(rule.controls(memory), len(leaves))
        found = _by_shape(change, controls, wide, grads, moments)
        changes = [
            change.astype(jnp.result_type(leaf))
            for (change, _), leaf in zip(found, leaves, strict=True)
        ]
        moments = structure.unflatten([moments for _, moments in found])
        return structure.unflatten(changes), LearnedState(done, trend, memory, moments)

    tx = optax.GradientTransformationExtraArgs(init, update)
    return requiring(tx, rule.name, ("value",))


def _rows(
    rule: Rule, shared: dict[str, jax.Array], params: list[jax.Array], moments: list[Any]
) -> jax.Array:
    """A row for each tensor, or one for all: the features in the order of their names."""
    of_tensors = [{}] if rule.features is None else _by_shape(rule.features, params, moments)
    rows = [{**shared, **of_tensor} for of_tensor in of_tensors]
    return jnp.stack([jnp.concatenate([row[name] for name in sorted(row)]) for row in rows])


def _for_each(controls: Any, tensors: int) -> list[Any]:
    """What the scheduler says, taken apart; a single row is for every tensor."""
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(controls)}
    take = [0] * tensors if rows == {1} else range(tensors)
    return [jax.tree.map(operator.itemgetter(i), controls) for i in take]


def _by_shape(function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
    """`function` of each tensor, compiled once for all tensors of the same shape.

    A model has many tensors and few shapes, and a program of some hundred operations for each
    tensor takes minutes to compile.

    Args:
        function: of one entry of each column.
        *columns: an entry for each tensor.
    """
    groups: dict[Any, list[int]] = {}
    for i, entries in enumerate(zip(*columns, strict=True)):
        groups.setdefault(str(jax.tree.map(jnp.shape, entries)), []).append(i)
    results: dict[int, Any] = {}
    for group in groups.values():
        if len(group) == 1:
            results[group[0]] = function(*(column[group[0]] for column in columns))
            continue
        stacked = [
            jax.tree.map(lambda *parts: jnp.stack(parts), *(column[i] for i in group))
            for column in columns
        ]
        together = jax.vmap(function)(*stacked)
        for row, i in enumerate(group):
            results[i] = jax.tree.map(operator.itemgetter(row), together)
    return [results[i] for i in range(len(columns[0]))]


def _wide(leaf: Any) -> jax.Array:
    """An array of a tensor as one channel of float32, ``[1, *shape]``."""
    return jnp.asarray(leaf).astype(jnp.float32)[None]


def check_steps(name: str, argument: str, steps: object) -> None:
    """Refuses what is no number of steps, an unknown one with the rest.

    Raises:
        OptimizerError: naming the argument.
    """
    if isinstance(steps, numbers.Integral) and not isinstance(steps, bool) and int(steps) >= 1:
        return
    raise OptimizerError(
        f"Received {argument}={steps!r} for optimizer {name!r}; expected a whole number of at "
        "least 1, because its steps depend on how much of the run is left. Write total_steps, the "
        "updates of the whole run; with a trainer whose loader has no len(), "
        "loop=LoopOptions(steps_per_epoch=...) or train_model(..., max_steps=...)."
    )


def _check_params(name: str, params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise OptimizerError(
                f"Received {path_name(path, 'params')} of {describe_leaf(leaf)} for optimizer "
                f"{name!r}; expected floating-point parameters. Keep others out of the parameters, "
                "or mask them with optax.masked."
            )


def given(name: str, params: PyTree) -> PyTree:
    """The parameters of an update, which must be there."""
    if params is not None:
        return params
    raise OptimizerError(
        f"Received an update of optimizer {name!r} without parameters; expected them, because its "
        "steps depend on them. Write tx.update(grads, opt_state, params, value=loss)."
    )


def loss_of(name: str, value: Any) -> jax.Array:
    """The loss of an update as a float32 scalar."""
    loss = jnp.asarray(value)
    if loss.shape == () and jnp.issubdtype(loss.dtype, jnp.floating):
        return loss.astype(jnp.float32)
    raise OptimizerError(
        f"Received value of {describe_leaf(loss)} for optimizer {name!r}; expected the loss of the "
        "step, a floating-point scalar. Write value=loss.mean()."
    )
