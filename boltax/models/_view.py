"""`ModelView`: the `model` of `loss_function` and `predict_function`. All of it is traced."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax

from boltax._base._keys import fold_name
from boltax._base._trees import describe
from boltax._base._types import Variables
from boltax.errors import noting
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call, Method, abstract, library_class
from boltax.models._collections import PARAMS


class InnerCallError(Exception):
    """The first call keeps nothing, as in the body of a loop: what it made would belong to that.

    Args:
        call: that call, with shapes in place of arrays.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.call = call


class ModelView:
    """The trainer's model during one step, as a function of its inputs.

    Calling it takes care of the parameters, of collections such as BatchNorm statistics, of random
    streams, and of the train or evaluation mode. It may be called several times: collections go
    from call to call, and each call has random keys of its own. Methods of the model are called as
    ``model.encode(x)`` or ``model(x, method="encode")``.

    Inside of `jax.grad`, `jax.vmap` or `jax.lax.scan` in the loss, call it with ``mutable=False``,
    which keeps nothing of the call: JAX lets no updated statistics out of there.

    Args:
        adapter: the model.
        variables: its variables in this step.
        key: random key of this step.
        train: whether this is a training step.
        hparams: hyperparameters; those that are floats are traced.
        initializing: whether the calls make the variables.

    Attributes:
        train: whether this is a training step.
        hparams: hyperparameters of the trainer, by name.
        variables: the variables, as the calls so far have left them.
        calls: with what the model was called, as shapes; recorded in initialisation only.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from boltax.models._adapter import adapt
        >>> adapter = adapt(nn.Dense, {"features": 3})
        >>> view = ModelView(adapter, {}, jax.random.key(0), train=True, initializing=True)
        >>> view(jnp.ones((2, 4))).shape
        (2, 3)
        >>> view.params["kernel"].shape
        (4, 3)
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        variables: Variables,
        key: jax.Array,
        *,
        train: bool,
        hparams: Mapping[str, Any] = MappingProxyType({}),
        initializing: bool = False,
    ) -> None:
        self.train = train
        self.hparams = MappingProxyType(dict(hparams))
        self.variables: Variables = {PARAMS: {}, **variables}
        self.calls: list[Call] = []
        self._adapter = adapter
        self._key = key
        self._initializing = initializing
        self._call_numbers = itertools.count()
        self._draws: dict[str, itertools.count[int]] = defaultdict(itertools.count)

    def __call__(
        self, *args: Any, method: Method = None, mutable: Any = None, **kwargs: Any
    ) -> Any:
        """Calls the model.

        Args:
            *args: its inputs.
            method: what to call in place of ``__call__``: a name, or a function that takes the
                module first.
            mutable: collections to hand out, as in Flax: ``mutable=["intermediates"]``. They change
                in evaluation, too. False: nothing of this call is kept, so statistics do not
                change.
            **kwargs: passed on. An explicit ``train=`` (``deterministic=``, ...) wins over the mode
                of the step.

        Returns:
            The outputs; with `mutable`, ``(outputs, {collection: values})``.
        """
        if self._initializing:
            call = Call(abstract(args), abstract(kwargs), method)
            if mutable is False and not self.variables[PARAMS]:
                raise InnerCallError(call)
            self.calls.append(call)
        with noting(f"a call of {_title(self._adapter.name, method)}", _describe(args, kwargs)):
            outputs, variables = self._adapter.apply(
                self.variables,
                args,
                kwargs,
                train=self.train,
                keys=self._keys(next(self._call_numbers)),
                method=method,
                initializing=self._initializing,
                mutable=mutable,
            )
        if self._initializing and mutable is False:
            variables = _with_new(self.variables, variables)
        self.variables.update(variables)
        return outputs

    def __getattr__(self, name: str) -> Any:
        adapter = self.__dict__.get("_adapter")
        kind: Any = type(getattr(adapter, "model", None))
        library = library_class(kind)
        if callable(getattr(kind, name, None)) and not hasattr(library, name):
            return functools.partial(self, method=name)
        raise AttributeError(
            f"Received model.{name}; expected a method of {kind.__name__}, or one of: params, "
            f'hparams, rng, train, variables. For a submodule write model(x, method="{name}"), for '
            "anything else a method of the model that returns it."
        )

    @property
    def params(self) -> Any:
        """The model's parameters, a nested dict; gradients flow through them."""
        return self.variables[PARAMS]

    def rng(self, name: str = "default") -> jax.Array:
        """A new random key.

        Args:
            name: names the purpose, so that draws for one do not move those for another.

        Returns:
            A typed key, another one in each step and at each call. In evaluation and prediction it
            follows from the seed and the place of the batch in the data, whatever was trained.
        """
        return jax.random.fold_in(fold_name(self._key, f"rng/{name}"), next(self._draws[name]))

    def _keys(self, call_number: int) -> Callable[[str], jax.Array]:
        return lambda name: jax.random.fold_in(fold_name(self._key, name), call_number)


def _with_new(before: Any, after: Any) -> Any:
    """What there was, and what is new: in the body of a loop what there was became another."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return before
    both = {name: _with_new(before[name], after[name]) for name in before.keys() & after.keys()}
    return {**after, **before, **both}


def _title(model: str, method: Method) -> str:
    name = method if isinstance(method, str) else getattr(method, "__name__", None)
    return f"{model}.{name}" if name else model


def _describe(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    named = f", {describe(kwargs, 'kwargs')}" if kwargs else ""
    return f"with {describe(args, 'args')}{named}"
