"""A pair of plain functions as a model: `Functional`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boltax.models._calls import parameters_of

STATE, KEYS, SHAPE = "state", ("key", "rng"), "input_shape"
"""The names of arguments that such functions have conventions for."""
_GENERAL = ("apply", "apply_fun", "apply_fn", "<lambda>")


@dataclass(frozen=True)
class Functional:
    """A model that is two functions: one makes its parameters, one calls it.

    For models of stax and Haiku, and for those written by hand: ``Functional(init, apply)`` is the
    ``model_class``, and ``model(inputs)`` in the loss calls ``apply(params, inputs)``. Parameters
    may be any pytree of floating-point arrays: lists, tuples, named tuples, dataclasses. What the
    functions take is read from the names of their arguments:

    - `init` takes a key first, and then the inputs of the first call, if it takes anything more. It
      returns the parameters; ``(params, state)`` where `apply` takes ``state``. With
      ``input_shape``, as in stax, it gets the shape of the input and returns ``(shape, params)``.
    - `apply` takes the parameters first. ``state`` is what `init` or the last call returned, and
      then it returns ``(outputs, state)``. ``key`` or ``rng`` is a random key of this call, and
      ``train`` (``is_training``, ``deterministic``, ...) the mode.
    - The other arguments of both may come from ``model_hparams``.

    Pairs of stax and Haiku are ``Functional(*stax.serial(...))`` and
    ``Functional(*hk.transform(forward))``. A run stores them by name where the trainer's module has
    them at its top level: the `Functional` itself, or the two functions.

    Args:
        init: makes the parameters; traced.
        apply: calls the model; pure, and traced.
        name: names the run's folder; by default after `apply`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from boltax.models import adapt
        >>> def init(key, x, width):
        ...     return [jax.random.normal(key, (x.shape[-1], width)), jnp.zeros(width)]
        >>> def line(params, x):
        ...     return x @ params[0] + params[1]
        >>> model = adapt(Functional(init, line), {"width": 3})
        >>> model.name
        'line'
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    name: str = ""

    @property
    def __name__(self) -> str:
        """The name, or that of `apply`."""
        own = getattr(self.apply, "__name__", "<lambda>")
        return self.name or ("Functional" if own in _GENERAL else own)

    @property
    def has_state(self) -> bool:
        """Whether `apply` takes and returns state."""
        return STATE in parameters_of(self.apply)

    @property
    def takes_shape(self) -> bool:
        """Whether `init` asks for the shape of its input, as in stax."""
        return SHAPE in parameters_of(self.init)

    @property
    def key_name(self) -> str | None:
        """The name under which `apply` takes its random key; None for one that takes none."""
        names = parameters_of(self.apply)
        if self.takes_shape and any(p.kind is p.VAR_KEYWORD for p in names.values()):
            return "rng"  # the layers of stax hand it on, and only name it at the innermost one
        return next((name for name in KEYS if name in names), None)

    @property
    def needs_key(self) -> bool:
        """Whether `apply` cannot be called without a random key."""
        parameter = parameters_of(self.apply).get(self.key_name or "")
        return parameter is not None and parameter.default is inspect.Parameter.empty

    @property
    def leading(self) -> list[str]:
        """State and key, where they stand between the parameters and the inputs, as in Haiku."""
        found: list[str] = []
        for name, parameter in list(parameters_of(self.apply).items())[1:]:
            is_positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            if not is_positional or name not in (STATE, *KEYS):
                break
            found.append(name)
        return found

    def needs_inputs(self, hparams: Any) -> bool:
        """Whether `init` takes the inputs of the first call, beside the key and hyperparameters."""
        rest = list(parameters_of(self.init).values())[1:]
        return any(
            p.kind is p.VAR_POSITIONAL
            or (p.kind is not p.KEYWORD_ONLY and p.name not in hparams and p.default is p.empty)
            for p in rest
        )
