"""What boltax asks of a model library, and the choice of the adapter that answers for it.

An adapter holds what is static of a model; the variables stay with the caller, as plain nested
dicts.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax

from boltax._base._types import Variables
from boltax.errors import ModelError, noting, unknown_name
from boltax.models._calls import (
    Call,
    Method,
    constructor_parameters,
    is_equinox,
    is_nnx,
    parameters_of,
)
from boltax.models._functional import Functional
from boltax.models._functional_adapter import FunctionalAdapter
from boltax.models._linen import LinenAdapter
from boltax.models._lora import Lora, LoraAdapter
from boltax.models._vmap import Vmap
from boltax.parallel._rules import AxisNames


class ModelAdapter(Protocol):
    """A model of any library, as the steps call it.

    Attributes:
        model: the Linen module, or the module of NNX or Equinox with shapes in place of its arrays.
        name: the model's class name; it names the run's folder.
        apply_fn: ``apply_fn(variables, *args, **kwargs)``, what `TrainState.apply_fn` holds:
            Linen's ``model.apply``, and a function with the same arguments for the others.
    """

    model: Any
    name: str
    apply_fn: Callable[..., Any]

    @property
    def axis_names(self) -> AxisNames:
        """How the model names the axes of its variables, by path with the collection in front.

        Known once the model was initialised, or traced for that.
        """
        ...

    def empty(self, key: jax.Array) -> Variables:
        """The variables that exist before the first call; traced.

        Args:
            key: random key of the initial values.

        Returns:
            All variables of a module of NNX or Equinox; none for Linen, which makes them in an
            initialising call.
        """
        ...

    def apply(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        train: bool,
        keys: Callable[[str], jax.Array],
        method: Method = None,
        initializing: bool = False,
        mutable: Any = None,
    ) -> tuple[Any, Variables]:
        """Calls the model; traced.

        Args:
            variables: by collection, ``{"params": ..., ...}``.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call. The mode is added where the model takes it.
            train: whether to train; then the collections change.
            keys: gives the key of a named random stream.
            method: what to call of the model.
            initializing: whether variables that are missing are made, and those that exist stay as
                they are.
            mutable: Flax's filter of collections to hand out beside the outputs. They change in
                evaluation, too.
                False: nothing of this call is kept.

        Returns:
            The outputs, or ``(outputs, {collection: values})`` when `mutable` names collections;
            and all variables after the call. Parameters are those that went in.

        Raises:
            ModelError: when a collection changes its structure, or a call adds variables.
        """
        ...

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The model with its variables, in evaluation mode: call it as ``model(x)``.

        Args:
            variables: by collection.
            rngs: keys of random streams, for models that draw in evaluation.

        Returns:
            A `BoundModel`; for NNX the module itself, unless its methods take the mode as an
            argument; for Equinox a module of Equinox.
        """
        ...

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """A table of the model, in the form of Flax's own; see `summarize`.

        Args:
            calls: how the model is called, with shapes in place of arrays.
            depth: how many levels of submodules it shows; None for all.
            console: arguments of the `rich.console.Console` that prints it.
        """
        ...


def adapt(
    model_class: Any, model_hparams: Mapping[str, Any], *, rng_streams: Sequence[str] = ()
) -> ModelAdapter:
    """The adapter of a model.

    Args:
        model_class: a class of Flax Linen, NNX or Equinox modules, a function with an argument
            ``key`` that makes an Equinox module, a `functools.partial` of one of these, a `Vmap`,
            a `Functional`, a `Lora`, or a Linen module.
        model_hparams: arguments of its constructor; NNX's ``rngs`` and Equinox's ``key`` are not
            among them.
        rng_streams: names of random streams beside ``params``, ``dropout`` and ``default``.

    Raises:
        ModelError: when this is no model, or the hyperparameters do not fit its constructor.

    Example:
        >>> import flax.linen as nn
        >>> adapt(nn.Dense, {"features": 3}).model
        Dense(...
    """
    if isinstance(model_class, Lora):
        inner = adapt(model_class.model, model_hparams, rng_streams=rng_streams)
        return LoraAdapter(inner, model_class)
    vmap = model_class if isinstance(model_class, Vmap) else None
    model_class = vmap.model if vmap else model_class
    if isinstance(model_class, Functional):
        return FunctionalAdapter(model_class, model_hparams, vmap)
    if isinstance(model_class, functools.partial) and not model_class.args:
        model_hparams = {**model_class.keywords, **model_hparams}
        model_class = model_class.func
    if _makes_equinox(model_class):
        from boltax.models._equinox import EquinoxAdapter  # an optional package

        _check_hparams(model_class, model_hparams, ours=("key",))
        _check_takes_key(model_class)
        return EquinoxAdapter(model_class, model_hparams, vmap)
    if vmap:
        raise _takes_batches(vmap)
    if isinstance(model_class, nn.Module):
        _check_no_hparams(model_class, model_hparams)
        return LinenAdapter(model_class, rng_streams=rng_streams)
    if not isinstance(model_class, type):
        raise _not_a_model(model_class)
    if is_nnx(model_class):
        from boltax.models._nnx import (
            NnxAdapter,  # NNX is slow to import, so only for those who use it
        )

        _check_hparams(model_class, model_hparams, ours=("rngs",))
        return NnxAdapter(model_class, model_hparams, rng_streams=rng_streams)
    if not issubclass(model_class, nn.Module):
        raise _not_a_model(model_class)
    _check_hparams(model_class, model_hparams, ours=("parent",))
    with noting(f"the constructor of {model_class.__name__}"):
        module = model_class(**model_hparams)
    return LinenAdapter(module, given=tuple(model_hparams), rng_streams=rng_streams)


def _makes_equinox(model_class: Any) -> bool:
    """Whether this is a class of Equinox modules, or a function that takes a key as they do."""
    if isinstance(model_class, type):
        return is_equinox(model_class)
    return inspect.isroutine(model_class) and "key" in parameters_of(model_class)


def _check_takes_key(model_class: Any) -> None:
    if isinstance(model_class, type) and "key" not in constructor_parameters(model_class):
        name = model_class.__name__
        raise ModelError(
            f"Received {name} of Equinox, whose constructor takes no key; expected one, from which "
            "the parameters of each seed follow. Write def __init__(self, ..., *, key), or a "
            f"function as model_class: def make(*, key): return {name}(...)."
        )


def _check_no_hparams(module: nn.Module, hparams: Mapping[str, Any]) -> None:
    if hparams:
        name = type(module).__name__
        raise ModelError(
            f"Received a {name} that is built already, and model_hparams={dict(hparams)!r}; "
            f"expected one or the other. Write model_class={name}, model_hparams={{...}}, which "
            "the run can store and load."
        )


def _check_hparams(model_class: Any, hparams: Mapping[str, Any], *, ours: tuple[str, ...]) -> None:
    """Refuses hyperparameters that the constructor does not take, or that it lacks."""
    name = model_class.__name__
    is_class = isinstance(model_class, type)
    parameters = (constructor_parameters if is_class else parameters_of)(model_class)
    kinds = inspect.Parameter
    known = [
        key
        for key, p in parameters.items()
        if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY) and key not in ours
    ]
    given_ours = [key for key in ours if key in hparams]
    if given_ours:
        raise ModelError(
            f"Received model_hparams with {given_ours[0]!r} for {name}; expected hyperparameters "
            f"only: boltax hands in {given_ours[0]} itself. Leave it out of model_hparams."
        )
    takes_any = any(p.kind is kinds.VAR_KEYWORD for p in parameters.values())
    unknown = [key for key in hparams if key not in known]
    if unknown and not takes_any:
        raise ModelError(str(unknown_name(f"model_hparams of {name}", unknown[0], known)))
    missing = [
        key for key in known if parameters[key].default is kinds.empty and key not in hparams
    ]
    if missing:
        example = ", ".join(f"{key!r}: ..." for key in missing)
        raise ModelError(
            f"Received model_hparams={dict(hparams)!r} for {name}; expected {', '.join(missing)} "
            f"too, which the constructor needs. Write model_hparams={{{example}, ...}}."
        )


def _takes_batches(vmap: Vmap) -> ModelError:
    if isinstance(vmap.model, Lora):
        return ModelError(
            f"Received Vmap(Lora({vmap.__name__}, ...)); expected it the other way round. Write "
            f"Lora(Vmap({vmap.__name__}), ...)."
        )
    return ModelError(
        f"Received Vmap({vmap.__name__}); expected an Equinox model or a plain function: modules "
        f"of Flax take batches themselves. Write model_class={vmap.__name__}."
    )


def _not_a_model(received: Any) -> ModelError:
    if is_nnx(type(received)) or is_equinox(type(received)):
        name, library = type(received).__name__, "NNX" if is_nnx(type(received)) else "Equinox"
        return ModelError(
            f"Received a {name} of {library} that is built already; expected its class, so that "
            "the parameters follow from the trainer's seed and are made compiled. Write "
            f"model_class={name}, model_hparams={{...}}."
        )
    if inspect.isroutine(received):
        return ModelError(
            f"Received model_class={received.__name__}, a function; expected a class of Flax "
            "Linen, Flax NNX or Equinox modules, or a function with an argument key that makes an "
            'Equinox module. Write model_class=ResNet, model_hparams={"num_classes": 10}, or '
            "functools.partial(ResNet, num_classes=10)."
        )
    if isinstance(received, tuple) and all(map(callable, received)) and len(received) == 2:
        return ModelError(
            "Received model_class=(init, apply), a pair of functions; expected a model that knows "
            "what they take. Write model_class=boltax.models.Functional(init, apply)."
        )
    what = received.__name__ if isinstance(received, type) else repr(received)
    return ModelError(
        f"Received model_class={what} of type {type(received).__name__}; expected a class of Flax "
        "Linen (flax.linen.Module), Flax NNX (flax.nnx.Module) or Equinox (equinox.Module) "
        'modules. Write model_class=ResNet, model_hparams={"num_classes": 10}.'
    )
