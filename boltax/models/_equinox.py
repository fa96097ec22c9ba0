"""Equinox behind the adapter interface: a module is filled with its variables, and called.

All of it happens while a step is traced; the compiled step knows arrays only.
"""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
from flax.core.scope import in_filter

from boltax._base._types import Variables
from boltax.errors import ModelError, noting
from boltax.models._calls import (
    Call,
    Method,
    explicit_mode,
    given_by_name,
    keys_from,
    parameters_of,
    select_method,
    takes_mode,
    with_mode,
    without_mode,
)
from boltax.models._collections import PARAMS, settled
from boltax.models._equinox_summary import table_of
from boltax.models._equinox_template import build_module, make_template
from boltax.models._mapped import is_mapped, mapped_by_user
from boltax.models._vmap import Vmap
from boltax.parallel._rules import AxisNames

KEY, STATE, INFERENCE = "key", "state", "inference"
"""The names of arguments that Equinox has a convention for."""


class EquinoxAdapter:
    """An Equinox module as boltax calls it; see `ModelAdapter`.

    Floating-point arrays are the parameters, other arrays the collection ``arrays``, which nothing
    changes. What `eqx.nn.State` holds is the collection ``state``, and the moving averages of
    BatchNorm are ``batch_stats``. A method that has an argument ``key`` is given one of the call,
    one that has ``state`` the state, and then returns ``(outputs, state)``.

    Args:
        make: the class, or a function that makes a module.
        model_hparams: its arguments, other than ``key``.
        vmap: how the model is mapped over the batch; None for one that takes batches.
    """

    def __init__(
        self, make: Callable[..., Any], model_hparams: Mapping[str, Any], vmap: Vmap | None = None
    ) -> None:
        self._make, self._hparams, self._vmap = make, dict(model_hparams), vmap
        self.name = getattr(make, "__name__", type(make).__name__)
        self._template, self.model = make_template(
            self.name, lambda: self._build(jax.random.key(0))
        )
        self.apply_fn: Callable[..., Any] = self._apply_fn
        self.axis_names: AxisNames = {}

    def empty(self, key: jax.Array) -> Variables:
        """The variables of a newly built module. See `ModelAdapter.empty`."""
        return self._template.variables(*self._build(key))

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
        """Calls the module. See `ModelAdapter.apply`."""
        asked, keeps = mutable or (), train and mutable is not False
        call = Call(args, dict(kwargs), method)
        is_training, inputs = prepared(self.model, call, train=train)
        module = self._template.module(variables, train=is_training)
        state = self._template.state(variables)
        key: Any = keys("dropout")
        function = select_method(self.model, method)
        takes = parameters_of(function)
        keeps_state = keeps and self._template.has_state and STATE in takes
        if is_mapped((args, inputs), (variables, key)):
            if keeps_state or (_lacks(function, KEY) and KEY not in inputs):
                raise mapped_by_user(self.name)
            key = None  # a layer that cannot do without says so
        with _explaining(self.name, self._vmap):
            outputs, after = called(module, Call(args, inputs, method), state, key, self._vmap)
        if after is None and keeps_state:
            raise ModelError(
                f"Received {_described(outputs)} from {self.name}, which has state; expected "
                "(outputs, state). Return the state that the last layer gave back."
            )
        changed = {} if after is None else self._template.state_variables(after)
        extra = {
            name: value
            for name, value in {**variables, **changed}.items()
            if name != PARAMS and in_filter(asked, name)
        }
        kept = {
            name: settled(name, variables[name], value, self.name)
            for name, value in changed.items()
            if keeps or name in extra
        }
        # Initialisation leaves the values that the constructor gave.
        result = variables if initializing else {**variables, **kept}
        return (outputs, extra) if mutable else outputs, result

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The module with its variables. See `ModelAdapter.bind`."""
        module = self._template.module(variables, train=False)
        if self._vmap is None and not self._template.has_state and not _asks(type(module)):
            return module
        state = self._template.state(variables)
        return BoundEquinox(module, state, keys_from(rngs)("dropout"), self._vmap)

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """A table of the modules that the first call reaches. See `ModelAdapter.tabulate`."""

        def run(call: Call) -> Any:
            module, state = self._build(jax.random.key(0))
            _, inputs = prepared(module, call, train=True)
            key = jax.random.key(0)
            with_inputs = Call(call.args, inputs, call.method)
            return module, lambda: called(module, with_inputs, state, key, self._vmap)

        return table_of(self.name, self._template, run, calls[0], depth=depth, console=console)

    def _apply_fn(
        self,
        variables: Variables,
        *args: Any,
        train: bool = False,
        rngs: Mapping[str, jax.Array] | None = None,
        mutable: Any = False,
        method: Method = None,
        **kwargs: Any,
    ) -> Any:
        """`apply` as Linen has it: outputs, or ``(outputs, collections)`` with `mutable`."""
        keys = keys_from(rngs)
        return self.apply(
            variables, args, kwargs, train=train, keys=keys, method=method, mutable=mutable
        )[0]

    def _build(self, key: jax.Array) -> tuple[Any, Any]:
        with noting(f"the constructor of {self.name}", "which boltax traces"):
            made = build_module(self._make, {**self._hparams, KEY: key})
        if not isinstance(made[0], eqx.Module):
            raise ModelError(
                f"Received {type(made[0]).__name__} from the function {self.name}; expected an "
                "Equinox module, or a module and its eqx.nn.State. Write def make(width, *, key): "
                "return eqx.nn.MLP(4, 3, width, 2, key=key)."
            )
        return made


class BoundEquinox(eqx.Module):
    """An Equinox module in inference mode that is called as in the loss: ``model(images)``.

    It is an Equinox module itself. It maps the module over the batch where the trainer does, and
    hands in state, key and mode where the module takes them. Attributes are those of the module.

    Attributes:
        unwrapped: the module itself.
        state: its `eqx.nn.State`.
        key: random key for a module that asks for one in evaluation too.
        vmap: how it is mapped over the batch, or None.
    """

    unwrapped: Any
    state: Any
    key: jax.Array
    vmap: Vmap | None = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._called(None, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("unwrapped", "state", "key", "vmap"):
            raise AttributeError(name)
        value = getattr(self.unwrapped, name)
        if not callable(getattr(type(self.unwrapped), name, None)):
            return value
        return lambda *args, **kwargs: self._called(name, args, kwargs)

    def _called(self, method: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = Call(args, dict(kwargs), method)
        _, inputs = prepared(self.unwrapped, call, train=False)
        state = jax.tree.map(lambda leaf: leaf, self.state)  # Equinox lets one be used only once
        return called(self.unwrapped, Call(args, inputs, method), state, self.key, self.vmap)[0]


def prepared(module: Any, call: Call, *, train: bool) -> tuple[bool, dict[str, Any]]:
    """The mode of a call, and its keyword arguments with the mode where they ask for it."""
    function = select_method(module, call.method)
    explicit = explicit_mode(function, call.args, call.kwargs)
    kwargs = without_mode(function, call.kwargs)
    if isinstance(kwargs.get(INFERENCE), bool):
        explicit = not kwargs[INFERENCE]
    train = train if explicit is None else explicit
    parameters = parameters_of(function)
    if INFERENCE not in parameters:
        kwargs.pop(INFERENCE, None)
        kwargs = with_mode(function, call.args, kwargs, train=train)
    elif INFERENCE not in given_by_name(parameters, call.args, kwargs):
        kwargs[INFERENCE] = not train
    return train, kwargs


def called(
    module: Any, call: Call, state: Any, key: jax.Array | None, vmap: Vmap | None
) -> tuple[Any, Any]:
    """The outputs of a module, and its state after the call; None where it gives none back."""
    function = select_method(module, call.method)
    parameters = parameters_of(function)
    given = given_by_name(parameters, call.args, call.kwargs)
    has_state = bool(jax.tree.leaves(state))
    needs_state = _lacks(function, STATE) or (has_state and STATE in parameters)
    hands_state = needs_state and STATE not in given
    hands_key = key is not None and KEY in parameters and KEY not in given

    def run(args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Any) -> tuple[Any, Any]:
        own = {KEY: key} if hands_key else {}
        if hands_state:  # Equinox lets a state be used only once
            own[STATE] = jax.tree.map(lambda leaf: leaf, state)
        return _parted(function(*args, **kwargs, **own))

    if vmap is None:
        return run(call.args, call.kwargs, key)
    return vmap.over_examples(run, call.args, call.kwargs, key if hands_key else None)


@contextmanager
def _explaining(name: str, vmap: Vmap | None) -> Generator[None]:
    """Says what to write where one example was expected, or an axis has another name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if vmap is None:
            error.add_note(
                f"If {name} takes one example, as models of Equinox do, write "
                f"model_class=boltax.models.Vmap({name})."
            )
        raise
    except NameError as error:
        own = f", and {name} is mapped under {vmap.axis_name!r}" if vmap else ""
        error.add_note(
            f"BatchNorm is given the name of the batch axis{own}: "
            f'boltax.models.Vmap({name}, axis_name="batch").'
        )
        raise


def _parted(result: Any) -> tuple[Any, Any]:
    """Outputs and state of what a module returned: ``(outputs, state)``, or outputs alone."""
    if isinstance(result, eqx.nn.State):
        return None, result
    if isinstance(result, tuple) and result and isinstance(result[-1], eqx.nn.State):
        *outputs, state = result
        return outputs[0] if len(outputs) == 1 else tuple(outputs), state
    return result, None


def _asks(kind: type) -> bool:
    """Whether a method of the user's has to be given a key, a state or its mode."""
    methods = [
        method
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if name == "__call__" or not hasattr(eqx.Module, name)
    ]
    return any(
        takes_mode(method) or _lacks(method, KEY) or _lacks(method, STATE) for method in methods
    )


def _lacks(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument without a default value."""
    parameter = parameters_of(function).get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _described(outputs: Any) -> str:
    return f"a {type(outputs).__name__} and no eqx.nn.State"
