"""A learning rate that falls when the loss, or a metric of the validation, no longer improves.

`optax.contrib.reduce_on_plateau` decides; here it becomes a schedule, so that the learning rate in
the log is the one that is used. The training loss is seen at every step. A metric of the validation
is seen once for each validation: the loop puts the newest values into the state as `Evaluations`,
numbers that are traced and saved like all of it, and `apply_gradients` hands them to the optimizer
as the extra argument ``evaluations``.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from boltax._base._monitor import metric_names, nearest
from boltax.errors import ConfigurationError, MetricsError, OptimizerError, noting, unknown_name

NAME = "reduce_on_plateau"
_MODES = ("min", "max")
_ARGUMENTS = ("monitor", *inspect.signature(optax.contrib.reduce_on_plateau).parameters)


class Evaluations(NamedTuple):
    """What the optimizer may know of the validations.

    Attributes:
        number: validations so far, an int32 scalar.
        metrics: the newest value of each metric that the optimizer asks for, float32 scalars; NaN
            before the first validation.
    """

    number: jax.Array
    metrics: dict[str, jax.Array]


class PlateauState(NamedTuple):
    """The state of a learning rate that falls on a plateau.

    Attributes:
        updates: optimizer updates so far, an int32 scalar.
        base: what the schedule's shape is multiplied with, a float32 scalar.
        seen: validations that it knows of, an int32 scalar.
        plateau: the state of `optax.contrib.reduce_on_plateau`.
    """

    updates: jax.Array
    base: jax.Array
    seen: jax.Array
    plateau: Any


@dataclasses.dataclass(frozen=True)
class Plateau:
    """What decides that a learning rate falls.

    Attributes:
        tx: `optax.contrib.reduce_on_plateau`.
        metric: the metric of the validation that it follows; None for the training loss.
        sign: what the value is multiplied with, so that lower is better.
    """

    tx: optax.GradientTransformationExtraArgs
    metric: str | None
    sign: float

    def init(self) -> Any:
        """The state before the first value."""
        return self.tx.init(jnp.zeros((), jnp.float32))

    def after(self, state: Any, value: Any) -> Any:
        """The state after one more value."""
        value = self.sign * jnp.asarray(value, jnp.float32)
        return self.tx.update(jnp.zeros((), jnp.float32), state, value=value)[1]


@dataclasses.dataclass(frozen=True)
class PlateauLearningRate:
    """``base * shape(step) * scale`` as a schedule with a state, as optax's injection takes it.

    Attributes:
        shape: the factor at a step, for a warmup; None where it is 1.
        base: the learning rate that a run starts with.
        plateau: what decides on the scale.
    """

    shape: Callable[[jax.Array], Any] | None
    base: Any
    plateau: Plateau

    def init(self) -> PlateauState:
        """The state before the first update."""
        zero, base = jnp.zeros((), jnp.int32), jnp.asarray(self.base, jnp.float32)
        return PlateauState(zero, base, zero, self.plateau.init())

    def update(self, state: PlateauState, **extra_args: Any) -> PlateauState:
        """The state after one more update."""
        return self._informed(state, extra_args)._replace(updates=state.updates + 1)

    def __call__(self, state: PlateauState, **extra_args: Any) -> jax.Array:
        """The learning rate of the next update, a float32 scalar."""
        scale = self._informed(state, extra_args).plateau.scale
        shape = 1.0 if self.shape is None else self.shape(state.updates)
        return state.base * jnp.asarray(shape, jnp.float32) * scale

    def _informed(self, state: PlateauState, extra_args: Mapping[str, Any]) -> PlateauState:
        """The state that knows the loss of this update, or the newest validation."""
        if self.plateau.metric is None:
            value = extra_args.get("value")  # none yet where the state is made
            if value is None:
                return state
            return state._replace(plateau=self.plateau.after(state.plateau, value))
        evaluations: Evaluations | None = extra_args.get("evaluations")
        if evaluations is None:
            return state
        is_new = evaluations.number > state.seen
        after = self.plateau.after(state.plateau, evaluations.metrics[self.plateau.metric])
        plateau = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), after, state.plateau)
        return state._replace(seen=evaluations.number, plateau=plateau)


def plateau(arguments: Mapping[str, Any]) -> Plateau:
    """What the arguments of the schedule ``"reduce_on_plateau"`` describe.

    Args:
        arguments: those of optax, and ``monitor``: ``("val/acc", "max")``, the metric of the
            validation that is followed; without it the training loss is.

    Raises:
        UnknownNameError: for an argument that it does not have.
        OptimizerError: for a monitor that is none, or an argument that does not go with it.
    """
    own = dict(arguments)
    for name in own:
        if name not in _ARGUMENTS:
            raise unknown_name(f"argument of schedule {NAME!r}", name, _ARGUMENTS)
    monitor = own.pop("monitor", None)
    metric, mode = (None, "min") if monitor is None else _monitor(monitor)
    if mode == "max":
        if "rtol" in own:
            raise OptimizerError(
                f"Received rtol={own['rtol']!r} with monitor={monitor!r}; expected an absolute "
                "tolerance, because a relative one has no meaning for a value that grows. Write "
                '"atol": 0.001 instead.'
            )
        own = {"atol": 1e-4, **own, "rtol": 0.0}
    with noting(f"schedule {NAME!r} of optimizer_hparams"):
        tx = optax.contrib.reduce_on_plateau(**own)
    return Plateau(tx, metric, -1.0 if mode == "max" else 1.0)


def first_evaluations(metrics: Collection[str]) -> Evaluations | None:
    """What is known before the first validation; None where the optimizer asks for no metric."""
    if not metrics:
        return None
    nothing = {name: jnp.full((), jnp.nan, jnp.float32) for name in sorted(metrics)}
    return Evaluations(jnp.zeros((), jnp.int32), nothing)


def next_evaluations(before: Evaluations, metrics: Mapping[str, Any]) -> Evaluations:
    """What is known after one more validation; of several members in arrays ``[members]``.

    Args:
        before: what was known.
        metrics: what the validation gave, by name.

    Raises:
        MetricsError: when one that the optimizer asks for is not among them.
    """
    check_metrics(before, metrics)
    values = {
        name: jax.device_put(np.asarray(metrics[name], old.dtype), old.sharding)
        for name, old in before.metrics.items()
    }
    number = np.asarray(jax.device_get(before.number)) + np.int32(1)
    return Evaluations(jax.device_put(number, before.number.sharding), values)


def check_followed(metrics: Collection[str], val_loader: Any) -> None:
    """Refuses an optimizer that follows metrics of the validation where there is none."""
    if metrics and val_loader is None:
        raise ConfigurationError(
            f"Received optimizer_hparams that follow {', '.join(sorted(metrics))}, but no "
            "val_loader; expected one to compute it from. Write train_model(train_loader, "
            'val_loader, ...), or leave "monitor" out of the schedule to follow the training loss.'
        )


def check_metrics(evaluations: Evaluations, metrics: Collection[str]) -> None:
    """Raises when a validation lacks a metric that the optimizer asks for.

    Raises:
        MetricsError: naming it.
    """
    missing = [name for name in evaluations.metrics if name not in metrics]
    if missing:
        near = nearest(missing[0], metric_names(metrics))
        hint = f" Did you mean {near!r}?" if near else ""
        raise MetricsError(
            f"Received a validation with {', '.join(sorted(metrics)) or 'no metrics'}; expected "
            f"{missing[0]}, which schedule {NAME!r} of optimizer_hparams follows.{hint} Return it "
            'from loss_function or eval_step, or write another "monitor".'
        )


def _monitor(monitor: Any) -> tuple[str, str]:
    is_pair = isinstance(monitor, list | tuple) and len(monitor) == 2
    if is_pair and all(isinstance(part, str) for part in monitor):
        metric, mode = monitor
        if metric.startswith("val/") and mode in _MODES:
            return metric, mode
    raise OptimizerError(
        f"Received monitor={monitor!r} of schedule {NAME!r}; expected a metric of the validation "
        'and "min" or "max". Write "monitor": ("val/loss", "min"), or leave it out to follow the '
        "training loss."
    )
