"""A model with its parameters, for inference: `BoundModel` calls it in evaluation mode."""

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from boltax.models._calls import with_mode


class BoundModel:
    """A module with its variables that evaluates unless told otherwise.

    ``model(x)`` calls the module with ``train=False`` (or ``deterministic=True``, ...) where it
    takes such an argument, so a model whose ``train`` is True by default does not run dropout at
    inference. Everything else is the module's
    own: attributes, methods and submodules (``model.encoder(x)``), which evaluate in the same way.

    Args:
        module: the module, with its variables.
        kind: the class of modules of its library; values of that class come back as a `BoundModel`
            too.

    Attributes:
        unwrapped: the module itself.
        hparams: those of its trainer, by `TrainerModule.bind_model`, unless it has its own.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> class Model(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train=True):
        ...         return nn.Dropout(0.5, deterministic=not train)(x)
        >>> model = BoundModel(Model().bind({}), nn.Module)
        >>> model(jnp.ones(3))
        Array([1., 1., 1.], dtype=float32)
    """

    hparams: Mapping[str, Any]

    def __init__(self, module: Any, kind: type) -> None:
        self.unwrapped = module
        self._kind = kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.unwrapped(*args, **with_mode(self.unwrapped, args, kwargs, train=False))

    def __getattr__(self, name: str) -> Any:
        if name in ("unwrapped", "_kind"):  # not there yet: while it is copied, say
            raise AttributeError(name)
        return self._evaluating(getattr(self.unwrapped, name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.unwrapped)})

    def __repr__(self) -> str:
        return f"BoundModel({self.unwrapped!r})"

    def _evaluating(self, value: Any) -> Any:
        if isinstance(value, self._kind):
            return BoundModel(value, self._kind)
        if type(value) in (list, tuple):
            return tuple(self._evaluating(item) for item in value)
        if inspect.ismethod(value) and isinstance(value.__self__, self._kind):
            return _in_evaluation(value)
        return value


def with_hparams(model: Any, hparams: Mapping[str, Any]) -> Any:
    """A bound model that knows its trainer's hyperparameters, where it has none of its own.

    Args:
        model: of any kind; one that is the user's own module stays as it is.
        hparams: name to value.
    """
    if isinstance(model, BoundModel) and not hasattr(model.unwrapped, "hparams"):
        model.hparams = MappingProxyType(dict(hparams))
    return model


def _in_evaluation(method: Any) -> Any:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **with_mode(method, args, kwargs, train=False))

    return call
