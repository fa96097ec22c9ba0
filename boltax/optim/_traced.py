"""Optimizers whose hyperparameters are values in their state, so that a population can vary them.

`build` puts the learning rate and the weight decay there. Here any number of `optimizer_hparams`
joins them: limits of clipping, and the optimizer's own arguments as far as optax can compute with
them inside of a compiled step. With several optimizers a number is named with its part,
``"generator.lr"``.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from numbers import Integral, Real
from typing import Any, TypeGuard, cast

import jax
import jax.numpy as jnp

from boltax._base._types import PyTree
from boltax.errors import OptimizerError, noting
from boltax.optim._build import (
    Optimizer,
    OptimizerHparams,
    build,
    from_settings,
    schedule_of,
    several,
    together,
)
from boltax.optim._learning_rate import LearningRateState
from boltax.optim._named import KEY, NamedState, by_name, of_part
from boltax.optim._plateau import PlateauState
from boltax.optim._settings import KEYS, Settings, read

IN_STATE = {"lr": "learning_rate"}
"""What optax calls a value where that is another name than in `optimizer_hparams`."""


class TracedOptimizer:
    """The optimizer of `optimizer_hparams`, with some of its numbers as values in its state.

    Attributes:
        optimizer: as `build` makes it, but for these values.
        names: the names of the values.

    Args:
        optimizer_hparams: as for `build`; a dict has a number for each of `names`. For any other
            form the names are those of its own `optax.inject_hyperparams`.
        total_steps: optimizer updates of the whole run; None when unknown.
        names: the numbers of `optimizer_hparams` that are to be in the state.

    Raises:
        OptimizerError: when ``lr`` is among them and does more than multiply the schedule.
    """

    def __init__(
        self,
        optimizer_hparams: OptimizerHparams,
        total_steps: int | None,
        names: Collection[str],
    ) -> None:
        self.names = frozenset(names)
        self._total_steps = total_steps
        self._settings: Settings | None = None
        self._parts: dict[str, TracedOptimizer] = {}
        if is_one_optimizer(optimizer_hparams):
            self._settings = read(optimizer_hparams or {})
            if "lr" in self.names:
                _check_schedule(self._settings, total_steps)
            first = {name: value_of(self._settings, name) for name in self.names}
            self.optimizer: Optimizer = from_settings(self._settings, total_steps, first)
        elif isinstance(optimizer_hparams, Mapping):
            for part, inner in several(optimizer_hparams).items():
                with _noting_part(part):
                    own = of_part(part, dict.fromkeys(self.names))
                    self._parts[part] = TracedOptimizer(inner, total_steps, own)
            self.optimizer = together({part: own.optimizer for part, own in self._parts.items()})
        else:
            self.optimizer = build(optimizer_hparams, total_steps)

    def init(self, params: PyTree, values: Mapping[str, Any]) -> PyTree:
        """The state before the first update, with these values in it; they may be traced."""
        if self._settings is not None:
            traced = {name: values[name] for name in self.names}
            tx = from_settings(self._settings, self._total_steps, traced).tx
            return tx.init(params)
        if self._parts:
            of_parts = {
                part: own.optimizer.tx._replace(
                    init=functools.partial(own.init, values=of_part(part, values))
                )
                for part, own in self._parts.items()
            }
            return by_name(of_parts).init(params)
        return self.with_values(self.optimizer.tx.init(params), values)

    def with_values(self, opt_state: PyTree, values: Mapping[str, Any]) -> PyTree:
        """The state with other values; they may be traced."""
        if self._parts:
            states = cast("NamedState", opt_state).parts
            return NamedState(
                {
                    part: own.with_values(states[part], of_part(part, values))
                    for part, own in self._parts.items()
                }
            )
        own = {IN_STATE.get(name, name): values[name] for name in self.names}
        return _replaced(opt_state, own)


def traceable(optimizer_hparams: OptimizerHparams, wanted: Collection[str]) -> dict[str, bool]:
    """The keys of `optimizer_hparams` that exist, and whether a population can vary each.

    With several optimizers those of each, named as in `flat`.

    Args:
        optimizer_hparams: as for `build`.
        wanted: the names for which the answer counts; others may be called fixed unasked.
    """
    if isinstance(optimizer_hparams, Mapping) and not is_one_optimizer(optimizer_hparams):
        asked = dict.fromkeys(wanted)
        return {
            f"{part}.{name}": can_vary
            for part, inner in several(optimizer_hparams).items()
            for name, can_vary in traceable(inner, of_part(part, asked)).items()
        }
    if not is_one_optimizer(optimizer_hparams):
        tx = build(optimizer_hparams, 1000).tx
        found = jax.eval_shape(tx.init, _SMALL)
        return dict.fromkeys(_names_in(found), True)
    settings = read(optimizer_hparams or {})
    entry = settings.entry
    is_traced = dict.fromkeys({*KEYS, *entry.arguments}, False)
    is_traced["lr"] = entry.has_lr and not callable(settings.schedule)
    is_traced["weight_decay"] = entry.has_decay and not (
        entry.default_lr is None and settings.lr is None
    )
    is_traced["gradient_clip"] = settings.clip is None or settings.clip[0] == "norm"
    is_traced["l2_regularization"] = True
    for name in entry.arguments:
        is_traced[name] = name in wanted and _can_trace(settings, name)
    return is_traced


def is_one_optimizer(
    optimizer_hparams: OptimizerHparams,
) -> TypeGuard[Mapping[str, Any] | None]:
    """Whether a dict, or nothing, describes a single optimizer."""
    if optimizer_hparams is None:
        return True
    return isinstance(optimizer_hparams, Mapping) and KEY not in optimizer_hparams


def default_value(optimizer_hparams: OptimizerHparams, name: str) -> float | None:
    """The number that a run has where its dict does not name one; None when that is no number."""
    if is_one_optimizer(optimizer_hparams):
        return value_of(read(optimizer_hparams or {}), name)
    if isinstance(optimizer_hparams, Mapping):
        for part, inner in several(optimizer_hparams).items():
            for own in of_part(part, {name: None}):
                return default_value(inner, own)
    return None


def check_settings(optimizer_hparams: Mapping[str, Any]) -> None:
    """Raises what reading the settings of one optimizer, or of each of several, raises.

    Raises:
        UnknownNameError: as `build`.
        OptimizerError: as `build`.
    """
    if is_one_optimizer(optimizer_hparams):
        read(optimizer_hparams or {})
        return
    for part, inner in several(optimizer_hparams).items():
        if isinstance(inner, Mapping):
            with _noting_part(part):
                read(inner)


def _noting_part(part: str) -> AbstractContextManager[None]:
    return noting(f"optimizer_hparams['optimizers'][{part!r}]")


def _check_schedule(settings: Settings, total_steps: int | None) -> None:
    """Refuses a learning rate that does more than multiply the schedule."""
    shapes = [
        schedule.shape
        for lr in (1.0, 0.5)
        if (schedule := schedule_of(dataclasses.replace(settings, lr=lr), total_steps)) is not None
    ]
    steps = [round(part * (total_steps or 1000)) for part in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)]
    values = [[float(shape(step)) for step in steps] for shape in shapes if shape is not None]
    if len(values) == 2 and not all(map(math.isclose, *values)):
        raise OptimizerError(
            f"Received members that differ in lr, with schedule={settings.schedule!r}, some of "
            "whose values do not follow lr; expected a schedule that lr multiplies. Leave its "
            'values out, choose one such as "warmup_cosine", or make one population for each lr.'
        )


def value_of(settings: Settings, name: str) -> float | None:
    """The number that settings have under a name; None when there is none."""
    entry = settings.entry
    if name == "lr":
        return entry.default_lr if settings.lr is None else settings.lr
    if name == "weight_decay":
        return settings.weight_decay or 0.0
    if name == "gradient_clip":
        return None if settings.clip is None else settings.clip[1]
    if name == "l2_regularization":
        return settings.l2_regularization
    value: object = settings.arguments.get(name, _default(settings, name))
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value)


def _default(settings: Settings, name: str) -> object:
    parameter = inspect.signature(settings.entry.factory).parameters[name]
    return None if parameter.default is parameter.empty else cast("object", parameter.default)


_SMALL = {
    "bias": jax.ShapeDtypeStruct((3,), jnp.float32),
    "kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32),
}


def _can_trace(settings: Settings, name: str) -> bool:
    """Whether optax computes with an argument that is traced: asked by tracing it."""
    default = settings.arguments.get(name, _default(settings, name))
    if isinstance(default, bool | Integral | str) or callable(default):
        return False  # a whole number counts something, and shapes follow from it

    def update(params: PyTree, value: Any) -> PyTree:
        optimizer = from_settings(settings, 1000, {name: value})

        def loss(params: PyTree) -> jax.Array:
            return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(params)), jnp.float32(0))

        grads = params
        return optimizer.tx.update(
            grads,
            optimizer.tx.init(params),
            params,
            value=loss(params),
            loss=loss(params),
            grad=grads,
            value_fn=loss,
        )

    try:
        jax.eval_shape(update, _SMALL, jax.ShapeDtypeStruct((), jnp.float32))
    except (jax.errors.ConcretizationTypeError, TypeError, ValueError):
        return False
    return True


def _replaced(node: Any, values: Mapping[str, Any]) -> Any:
    """A state in which every `optax.inject_hyperparams` has these values."""
    hyperparams = getattr(node, "hyperparams", None)
    if isinstance(hyperparams, Mapping) and hasattr(node, "_replace"):
        held = cast("Mapping[str, Any]", hyperparams)
        new = {
            name: jnp.asarray(values[name], old.dtype) if name in values else old
            for name, old in held.items()
        }
        schedules = {
            name: state._replace(base=jnp.asarray(values[name], state.base.dtype))
            if isinstance(state, LearningRateState | PlateauState) and name in values
            else state
            for name, state in getattr(node, "hyperparams_states", {}).items()
        }
        scheduled = {name: held[name] for name in schedules}
        more = {"hyperparams_states": schedules} if hasattr(node, "hyperparams_states") else {}
        inner = _replaced(node.inner_state, values)
        return node._replace(hyperparams={**new, **scheduled}, inner_state=inner, **more)
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        fields = cast("Any", node)
        return type(node)(*(_replaced(part, values) for part in fields))
    if isinstance(node, tuple | list):
        parts = cast("list[Any]", node)
        return type(node)(_replaced(part, values) for part in parts)
    if isinstance(node, dict):
        named = cast("dict[Any, Any]", node)
        return {key: _replaced(part, values) for key, part in named.items()}
    return node


def _names_in(opt_state: PyTree) -> set[str]:
    """The names of the values that a transformation of the user has in its state."""
    hyperparams = getattr(opt_state, "hyperparams", None)
    names: set[str] = set()
    if isinstance(hyperparams, Mapping):
        own = set(cast("Mapping[str, Any]", hyperparams)) - set(
            getattr(opt_state, "hyperparams_states", {})
        )
        back = {value: key for key, value in IN_STATE.items()}
        names |= {back.get(name, name) for name in own}
    parts = (
        list(cast("dict[Any, Any]", opt_state).values())
        if isinstance(opt_state, dict)
        else list(cast("Any", opt_state))
        if isinstance(opt_state, tuple | list)
        else []
    )
    return names.union(*(_names_in(part) for part in parts)) if parts else names
