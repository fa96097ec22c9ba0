"""Every schedule of optax by name; what is known of the run is filled in where it is left out.

Absolute values are divided by the base learning rate, so that the base alone sets the scale.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import optax

from boltax.errors import noting
from boltax.optim._horizon import Horizon, Schedule, Shape, check_arguments, lenient, two_values

# Absolute values of a schedule; the first that it has is its learning rate.
_VALUES = ("peak_value", "init_value", "value", "end_value")
_NO_SCHEDULES = {"inject_hyperparams", "inject_stateful_hyperparams", "join_schedules"}


@functools.cache
def optax_schedules() -> Mapping[str, Callable[..., Shape]]:
    """The schedules of optax by name, as far as plain values describe them."""
    found = {
        name: value
        for name, value in vars(optax.schedules).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in _NO_SCHEDULES
    }
    return MappingProxyType(found)


def optax_schedule(
    name: str, arguments: dict[str, Any], lr: float | None, default_lr: float, run: Horizon
) -> Schedule:
    """The schedule of optax of that name.

    Args:
        name: one of `optax_schedules`.
        arguments: what the user wrote beside the name.
        lr: the user's learning rate; None when not given.
        default_lr: the learning rate in that case.
        run: the run's length and warmup.

    Raises:
        UnknownNameError: for an argument that the schedule does not have.
        OptimizerError: for one that is missing, or given twice.
    """
    parameters = inspect.signature(optax_schedules()[name]).parameters
    check_arguments(name, arguments, parameters, filled=set(parameters))
    main = next((value for value in _VALUES if value in parameters), None)
    if lr is not None and (main is None or main in arguments):
        raise two_values("lr", lr, f"schedule {name!r}", main or "peak_value in cosine_kwargs")
    if main is not None:
        arguments = {main: default_lr if lr is None else lr, **arguments}
    filled = _filled(name, arguments, parameters, run)
    check_arguments(name, filled, parameters, filled=set())
    with noting(f"schedule {name!r} of optimizer_hparams"):
        base = float(filled[main]) if main is not None and filled[main] else 1.0
        relative = {key: _relative(key, value, base) for key, value in filled.items()}
        shape = optax_schedules()[name](**relative)
    rate = "" if main is None else f"lr {filled[main]:g} "
    return Schedule(base, lenient(shape), f"{rate}{name}{run.describe()}")


def _relative(key: str, value: Any, base: float) -> Any:
    return value / base if key in _VALUES and value is not None else value


def _filled(
    name: str, arguments: Mapping[str, Any], parameters: Mapping[str, Any], run: Horizon
) -> dict[str, Any]:
    """The arguments, with what is known of the run where the user left it out."""
    if run.warmup and ("warmup_steps" not in parameters or "warmup_steps" in arguments):
        raise two_values("warmup", run.warmup, f"schedule {name!r}", "its own arguments")
    who, filled = f"schedule {name!r}", dict(arguments)
    if "warmup_steps" in parameters:
        filled.setdefault("warmup_steps", run.warmup_steps())
    if "init_value" in parameters and "init_value" not in filled:
        # optax stays at the initial value where there is no warmup to leave it.
        filled["init_value"] = 0.0 if filled["warmup_steps"] else filled["peak_value"]
    if "decay_steps" in parameters and "decay_steps" not in filled:
        filled["decay_steps"] = run.total(who)
    if "transition_steps" in parameters and "transition_steps" not in filled:
        before = filled.get("warmup_steps", 0) + filled.get("transition_begin", 0)
        filled["transition_steps"] = run.total(who) - before
    scales = filled.get("boundaries_and_scales")
    if isinstance(scales, Mapping):
        scales = {run.boundary(key): scale for key, scale in scales.items()}
        filled["boundaries_and_scales"] = scales
    return filled
