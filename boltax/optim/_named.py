"""Several optimizers, each for one named part of the parameters: GANs, actors and critics.

    {"optimizers": {"generator": {"optimizer": "adam", "lr": 1e-4}, "discriminator": {...}}}

The names are those at the top of the parameters. A step may update all parts, or one by one: the
state of a part that gets no gradients stays as it is. A setting of one of them is called by both
names, ``"generator.lr"``.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import optax

from boltax._base._types import PyTree
from boltax.errors import OptimizerError, unknown_name
from boltax.optim._by_path import freezing, frozen_in, is_freezing

KEY = "optimizers"
"""The one key of `optimizer_hparams` with several optimizers."""


class NamedState(NamedTuple):
    """The states of several optimizers.

    Attributes:
        parts: the state of each by the name of its part.
    """

    parts: dict[str, PyTree]


def by_name(
    optimizers: Mapping[str, optax.GradientTransformationExtraArgs],
) -> optax.GradientTransformationExtraArgs:
    """One transformation of several, each for the part of the parameters with its name.

    Its `update` takes gradients and parameters of all parts or of some, and returns the updates of
    these. ``value`` and ``loss`` may be one for all, or a dict with one for each part;
    ``value_fn`` is a function of a dict of the same parts.
    """

    def init(params: PyTree) -> NamedState:
        _check_names(optimizers, params)
        return NamedState({name: tx.init(params[name]) for name, tx in optimizers.items()})

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        found: dict[str, PyTree] = {}
        states = dict(state.parts)
        for name in updates:
            own = {key: _of_part(key, value, name, params) for key, value in extra.items()}
            part = None if params is None else params[name]
            found[name], states[name] = optimizers[name].update(
                updates[name], states[name], part, **own
            )
        return found, NamedState(states)

    if not any(map(is_freezing, optimizers.values())):
        return optax.GradientTransformationExtraArgs(init, update)

    def frozen(params: PyTree) -> PyTree:
        found = {name: frozen_in(tx, params[name]) for name, tx in optimizers.items()}
        return {
            name: jax.tree.map(lambda _: False, params[name]) if own is None else own
            for name, own in found.items()
        }

    return freezing(init, update, frozen)


def flat(optimizer_hparams: Any) -> dict[str, Any]:
    """The keys of an `optimizer_hparams` with their values, those of parts as ``"generator.lr"``.

    What is no dict, but a transformation or a function, has none.
    """
    if not isinstance(optimizer_hparams, Mapping):
        return {}
    hparams = cast("Mapping[str, Any]", optimizer_hparams)
    if KEY not in hparams:
        return dict(hparams)
    parts: Mapping[str, Any] = hparams[KEY]
    named = {part: inner for part, inner in parts.items() if isinstance(inner, Mapping)}
    return {f"{part}.{key}": value for part in named for key, value in named[part].items()}


def changed(optimizer_hparams: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """An `optimizer_hparams` with other values, which are named as in `flat`.

    A part that is no dict, but a transformation or a function, stays what it is.
    """
    if KEY not in optimizer_hparams:
        return {**optimizer_hparams, **values}
    parts = dict(cast("Mapping[str, Any]", optimizer_hparams[KEY]))
    for part, inner in parts.items():
        own = of_part(part, values)
        if own and (inner is None or isinstance(inner, Mapping)):
            parts[part] = {**(inner or {}), **own}
    return {KEY: parts}


def of_part(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values named for a part, ``"generator.lr"``, by the names that they have in it."""
    start = f"{part}."
    return {
        name.removeprefix(start): value for name, value in values.items() if name.startswith(start)
    }


def params_to_update(grads: PyTree, params: PyTree, opt_state: PyTree) -> PyTree | None:
    """The parts of the parameters that gradients are for; None where they are for all of them.

    Args:
        grads: gradients like the parameters, or a dict with those of some parts.
        params: all parameters.
        opt_state: the optimizer's state.

    Raises:
        UnknownNameError: for gradients of a part that there is not.
        OptimizerError: for gradients of some parts where one optimizer has all of them.
    """
    if not isinstance(grads, Mapping) or not isinstance(params, Mapping):
        return None
    if grads.keys() == params.keys():
        return None
    for name in grads:
        if name not in params:
            raise unknown_name("gradients of a part", name, params)
    if not isinstance(opt_state, NamedState):
        raise OptimizerError(
            f"Received gradients of {', '.join(grads) or 'nothing'}, for parameters with "
            f"{', '.join(params)}; expected gradients of all of them, because one optimizer has "
            'them all. Write optimizer_hparams={"optimizers": {'
            + ", ".join(f'"{name}": {{...}}' for name in params)
            + "}} to update them one by one."
        )
    return {name: params[name] for name in grads}


def _check_names(optimizers: Mapping[str, Any], params: PyTree) -> None:
    if not isinstance(params, Mapping):
        raise OptimizerError(
            f"Received optimizers for {', '.join(optimizers)}, and parameters of type "
            f"{type(params).__name__}; expected a dict of parameters with these names. Write one "
            "optimizer for all, as optimizer_hparams={'optimizer': 'adamw'}."
        )
    for name in optimizers:
        if name not in params:
            raise unknown_name("optimizer for the parameters", name, params)
    missing = [name for name in params if name not in optimizers]
    if missing:
        raise OptimizerError(
            f"Received optimizers for {', '.join(optimizers)}; expected one for each part of the "
            f"parameters: {', '.join(params)}. Write one for {missing[0]} too, or "
            f'"{missing[0]}": {{"optimizer": "sgd", "lr": 0.0, "schedule": "constant"}} to leave '
            "it as it is."
        )


def _of_part(key: str, value: Any, name: str, params: PyTree) -> Any:
    """An extra argument as the optimizer of one part needs it."""
    if key == "grad" or (key in ("loss", "value") and isinstance(value, Mapping)):
        return value[name]
    if key not in ("obj_fn", "value_fn") or not callable(value):
        return value
    whole: Callable[..., Any] = value

    @functools.wraps(whole)
    def of_part(part: PyTree, *args: Any, **kwargs: Any) -> Any:
        return whole({**params, name: part}, *args, **kwargs)

    return of_part
