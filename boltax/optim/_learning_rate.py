"""The learning rate inside the optimizer's state: put there as a schedule, read back for logs.

A schedule is a shape (factor by step) times a base learning rate. The base lives in the state and
not in the compiled program, so runs that differ in it alone share one executable, and a population
can hold one for each member.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from boltax._base._types import PyTree
from boltax.optim._named import NamedState


class LearningRateState(NamedTuple):
    """The state of a scheduled learning rate.

    Attributes:
        updates: optimizer updates so far, an int32 scalar.
        base: what the schedule's shape is multiplied with, a float32 scalar.
    """

    updates: jax.Array
    base: jax.Array


@dataclasses.dataclass(frozen=True)
class ScheduledLearningRate:
    """``base * shape(step)`` as a schedule with a state, as `optax.inject_hyperparams` takes it.

    Attributes:
        shape: the factor at a step, where the step counts completed updates, an int32 scalar.
        base: the learning rate that the factor multiplies when a run starts; it may be traced.
    """

    shape: Callable[[jax.Array], Any]
    base: Any

    def init(self) -> LearningRateState:
        """The state before the first update."""
        return LearningRateState(jnp.zeros((), jnp.int32), jnp.asarray(self.base, jnp.float32))

    def update(self, state: LearningRateState, **extra_args: Any) -> LearningRateState:
        """The state after one more update."""
        return state._replace(updates=state.updates + 1)

    def __call__(self, state: LearningRateState, **extra_args: Any) -> jax.Array:
        """The learning rate of the next update, a float32 scalar."""
        return state.base * jnp.asarray(self.shape(state.updates), jnp.float32)


def learning_rate(opt_state: PyTree) -> jax.Array | dict[str, jax.Array | None] | None:
    """The learning rate of the last update, or of the first one before any.

    Found are the learning rate of every optimizer that `build` makes, of an
    `optax.inject_hyperparams` in a transformation of the user, and the step size of a line search,
    however deep they lie in the state.

    Args:
        opt_state: an optimizer's state. Under `jit` the result is traced.

    Returns:
        A scalar, with leading axes where the state has them; None when there is no learning rate in
        the state, as with a transformation that has it built in. With several optimizers, a dict of
        these by name.

    Example:
        >>> import jax.numpy as jnp
        >>> from boltax.optim import build
        >>> tx = build({"lr": 0.5, "schedule": "constant"}, total_steps=None).tx
        >>> float(learning_rate(tx.init({"w": jnp.ones(3)})))
        0.5
    """
    if isinstance(opt_state, NamedState):
        return {name: _only(state) for name, state in opt_state.parts.items()}
    return _only(opt_state)


def _only(opt_state: PyTree) -> jax.Array | None:
    found = [*_injected(opt_state), *_line_searched(opt_state)]
    return found[0] if found else None


def with_learning_rate(opt_state: PyTree, value: jax.Array) -> PyTree:
    """The state with another learning rate, where `optax.inject_hyperparams` has put one.

    One that follows a schedule is computed anew by the next update.

    Args:
        opt_state: an optimizer's state, of any `build` or of the user.
        value: a float32 scalar.
    """

    def is_injected(node: Any) -> bool:
        return "learning_rate" in (getattr(node, "hyperparams", None) or {})

    def replaced(node: Any) -> Any:
        if not is_injected(node):
            return node
        old = node.hyperparams["learning_rate"]
        changed = {**node.hyperparams, "learning_rate": value.astype(jnp.result_type(old))}
        return node._replace(hyperparams=changed)

    return jax.tree.map(replaced, opt_state, is_leaf=is_injected)


def _parts(node: Any) -> list[Any]:
    if isinstance(node, Mapping):
        return list(node.values())
    if isinstance(node, tuple | list):
        return list(node)
    if dataclasses.is_dataclass(node):
        return [getattr(node, field.name) for field in dataclasses.fields(node)]
    return []


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for part in _parts(node):
        yield from _walk(part)


def _injected(opt_state: PyTree) -> Iterator[jax.Array]:
    for node in _walk(opt_state):
        hyperparams = getattr(node, "hyperparams", None)
        if isinstance(hyperparams, Mapping) and "learning_rate" in hyperparams:
            yield hyperparams["learning_rate"]


def _line_searched(opt_state: PyTree) -> Iterator[jax.Array]:
    for node in _walk(opt_state):
        if "learning_rate" in getattr(node, "_fields", ()):
            yield node.learning_rate
