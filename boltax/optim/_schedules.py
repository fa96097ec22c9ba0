"""Learning-rate schedules: ours, which know the length of the run, optax's, and the user's own.

Each becomes a shape (factor by step) times a base learning rate.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from boltax.errors import OptimizerError, noting, unknown_name
from boltax.optim._horizon import Horizon, Schedule, Shape, check_arguments, lenient, two_values
from boltax.optim._optax_schedules import optax_schedule, optax_schedules
from boltax.optim._plateau import NAME as PLATEAU
from boltax.optim._plateau import plateau

ScheduleSpec: TypeAlias = str | Mapping[str, Any] | Shape | None
"""A name, ``{"name": ..., **arguments}``, a function of the step, or None for a constant."""


def names() -> tuple[str, ...]:
    """The names of all schedules, sorted.

    Ours take `lr` and `warmup` from `optimizer_hparams`, and know the length of the run, which is
    that of its first start also where a resume makes it longer. They rise from 0 to `lr` in
    `warmup` steps, and fall to ``end * lr`` in the rest of the run; later steps keep that:

    - ``constant`` does not fall;
    - ``warmup_cosine`` (end 0.01) and ``cosine`` (end 0) fall as half a cosine, ``linear`` (end 0)
      on a line, ``exponential`` (end 0.01) by the same factor in every step;
    - ``piecewise`` falls by steps: ``{"name": "piecewise", "boundaries": {0.5: 0.1, 0.75: 0.1}}``,
      where a boundary is a step, or a fraction of the run, and its value the factor from there on;
    - ``reduce_on_plateau`` of optax.contrib falls by a ``factor`` (0.1) when the mean training loss
      of ``accumulation_size`` (1) steps has not improved ``patience`` (10) times; or, with
      ``"monitor": ("val/loss", "min")``, when this metric of the validation has not.

    Those of optax have their full names and arguments; `lr` is their peak or initial value, and
    `warmup` and the length of the run are filled in.

    Example:
        >>> [name for name in names() if not name.endswith("_schedule")]
        ['constant', 'cosine', 'exponential', 'exponential_decay', 'linear', 'piecewise',
         'reduce_on_plateau', 'warmup_cosine']
    """
    return tuple(sorted({*_OURS, *optax_schedules(), PLATEAU}))


def resolve(spec: ScheduleSpec, lr: float | None, default_lr: float, run: Horizon) -> Schedule:
    """The schedule that a user's `schedule`, `lr` and `warmup` describe.

    Args:
        spec: as the user wrote it.
        lr: the user's learning rate; None when not given.
        default_lr: the learning rate in that case.
        run: the run's length and warmup.

    Raises:
        UnknownNameError: for a name or an argument that does not exist.
        OptimizerError: when the settings contradict each other or lack something.
    """
    if spec is None:
        spec = "constant"
    if callable(spec):
        return _of_user(spec, lr, run)
    arguments = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = arguments.pop("name", None)
    if isinstance(name, str) and name in _OURS:
        return _ours(name, arguments, default_lr if lr is None else lr, run)
    if isinstance(name, str) and name in optax_schedules():
        return optax_schedule(name, arguments, lr, default_lr, run)
    if name == PLATEAU:
        return _on_plateau(arguments, default_lr if lr is None else lr, run)
    raise unknown_name("schedule", name, names())


def _constant(run: Horizon) -> Shape | None:
    return _after_warmup(optax.constant_schedule(1.0), run) if run.warmup else None


def _cosine(run: Horizon, end: float = 0.0) -> Shape:
    steps = run.rest("schedule 'cosine'")
    return _after_warmup(optax.cosine_decay_schedule(1.0, steps, alpha=end), run)


def _warmup_cosine(run: Horizon, end: float = 0.01) -> Shape:
    steps = run.rest("schedule 'warmup_cosine' (the default)")
    return _after_warmup(optax.cosine_decay_schedule(1.0, steps, alpha=end), run)


def _linear(run: Horizon, end: float = 0.0) -> Shape:
    steps = run.rest("schedule 'linear'")
    return _after_warmup(optax.linear_schedule(1.0, end, steps), run)


def _exponential(run: Horizon, end: float = 0.01) -> Shape:
    steps = run.rest("schedule 'exponential'")
    return _after_warmup(optax.exponential_decay(1.0, steps, end, end_value=end), run)


def _piecewise(run: Horizon, boundaries: Mapping[Any, float]) -> Shape:
    steps = {run.boundary(key): scale for key, scale in boundaries.items()}
    ramp = _after_warmup(optax.constant_schedule(1.0), run)
    stairs = optax.piecewise_constant_schedule(1.0, steps)
    return lambda step: ramp(step) * stairs(step)


_OURS: Mapping[str, Callable[..., Shape | None]] = MappingProxyType(
    {
        "constant": _constant,
        "cosine": _cosine,
        "exponential": _exponential,
        "linear": _linear,
        "piecewise": _piecewise,
        "warmup_cosine": _warmup_cosine,
    }
)


def _ours(name: str, arguments: Mapping[str, Any], lr: float, run: Horizon) -> Schedule:
    check_arguments(name, arguments, inspect.signature(_OURS[name]).parameters, filled={"run"})
    with noting(f"schedule {name!r} of optimizer_hparams"):
        shape = _OURS[name](run, **arguments)
    return Schedule(lr, shape and lenient(shape), f"lr {lr:g} {name}{run.describe()}")


def _on_plateau(arguments: Mapping[str, Any], lr: float, run: Horizon) -> Schedule:
    found, shape = plateau(arguments), _constant(run)
    followed = found.metric or "the training loss"
    words = f"lr {lr:g} {PLATEAU} of {followed}{run.describe()}"
    return Schedule(lr, shape and lenient(shape), words, found)


def _after_warmup(shape: Shape, run: Horizon) -> Shape:
    steps = run.warmup_steps()
    if not steps:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, steps), shape], [steps])


def _of_user(function: Shape, lr: float | None, run: Horizon) -> Schedule:
    name = getattr(function, "__name__", type(function).__name__)
    what = f"the function {name} as schedule"
    if lr is not None:
        raise two_values("lr", lr, what, "what the function returns")
    if run.warmup:
        raise two_values("warmup", run.warmup, what, "what the function returns")
    with noting("schedule of optimizer_hparams"):
        value = jax.eval_shape(function, jax.ShapeDtypeStruct((), jnp.int32))
    if getattr(value, "shape", None) == ():
        return Schedule(1.0, function, f"lr by {name}")
    raise OptimizerError(
        f"Received {what}, which returns {value}; expected a scalar, the learning rate at a step. "
        "Write for instance schedule=lambda step: 1e-3 * 0.99**step."
    )
