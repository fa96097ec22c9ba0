"""Plain functions behind the adapter interface. All of it is traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.core.scope import in_filter

from boltax._base._trees import describe, path_name
from boltax._base._types import PyTree, Variables
from boltax.errors import ModelError, noting, unknown_name
from boltax.models._calls import (
    Call,
    Method,
    keys_from,
    mode_values,
    parameters_of,
    trace_abstractly,
    with_mode,
    without_mode,
)
from boltax.models._collections import PARAMS, settled, strong
from boltax.models._functional import STATE, Functional
from boltax.models._mapped import is_mapped, mapped_by_user
from boltax.models._variables_table import summarize_variables
from boltax.models._vmap import Vmap
from boltax.parallel._rules import AxisNames

_KEEP = "Have apply return a state of the structure, shapes and dtypes that it was given."


class FunctionalAdapter:
    """A pair of functions as boltax calls it; see `ModelAdapter` and `Functional`.

    Args:
        functions: the pair.
        model_hparams: arguments of either, by name.
        vmap: how the model is mapped over the batch; None for one that takes batches.
    """

    def __init__(
        self, functions: Functional, model_hparams: Mapping[str, Any], vmap: Vmap | None = None
    ) -> None:
        self.model, self.name = functions, functions.__name__
        self.apply_fn: Callable[..., Any] = self._apply_fn
        self.axis_names: AxisNames = {}
        self._vmap = vmap
        takes = [parameters_of(f) for f in (functions.init, functions.apply)]
        for name in model_hparams:
            if not any(name in names for names in takes):
                known = {name for names in takes for name in list(names)[1:]}
                raise ModelError(str(unknown_name(f"model_hparams of {self.name}", name, known)))
        self._of_init, self._of_apply = (
            {name: value for name, value in model_hparams.items() if name in names}
            for names in takes
        )
        self._needs_inputs = functions.needs_inputs(self._of_init)

    def empty(self, key: jax.Array) -> Variables:
        """What `init` makes without inputs; nothing where it needs them. See `ModelAdapter`."""
        return {} if self._needs_inputs else self._made(key, ())

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
        """Calls the function. See `ModelAdapter.apply`."""
        if method is not None:
            raise ModelError(
                f"Received method={method!r} for {self.name}, a pair of plain functions; expected "
                "a call of the model. Write model(x), or call the function with model.params."
            )
        made = variables.get(PARAMS)
        if initializing and self._needs_inputs and isinstance(made, dict) and not made:
            variables = {**variables, **self._made(keys("params"), args)}
        asked, keeps = mutable or (), train and mutable is not False
        key: Any = keys("dropout")
        if is_mapped((args, dict(kwargs)), (variables, key)):
            if self.model.needs_key or (self.model.has_state and keeps):
                raise mapped_by_user(self.name)
            key = None
        outputs, state = self._called(variables, args, kwargs, key, train=train)
        changed = {} if state is None else {STATE: state}
        changed = {
            name: settled(name, variables[name], value, self.name, write=_KEEP)
            for name, value in changed.items()
        }
        extra = {
            name: value
            for name, value in {**variables, **changed}.items()
            if name != PARAMS and in_filter(asked, name)
        }
        kept = {name: value for name, value in changed.items() if keeps or name in extra}
        result = variables if initializing else {**variables, **kept}
        return (outputs, extra) if mutable else outputs, result

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The model with its parameters. See `ModelAdapter.bind`."""
        return BoundFunctional(self, variables, keys_from(rngs)("dropout"))

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """A table of the variables: functions have no layers. See `ModelAdapter.tabulate`."""

        def run(calls: list[Call]) -> Variables:
            key = jax.random.key(0)
            return self._made(key, calls[0].args if self._needs_inputs else ())

        return summarize_variables(trace_abstractly(run, list(calls[:1])), width=console["width"])

    def _called(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        key: jax.Array | None,
        *,
        train: bool,
    ) -> tuple[Any, Any]:
        """The outputs, and the state after the call; None where there is none."""
        functions = self.model
        named = {**self._of_apply, **without_mode(functions.apply, kwargs)}
        named = with_mode(functions.apply, (variables[PARAMS], *args), named, train=train)

        def run(args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Any) -> tuple[Any, Any]:
            own = {STATE: variables[STATE]} if functions.has_state else {}
            if functions.key_name and key is not None:
                own[functions.key_name] = key
            own = {name: value for name, value in own.items() if name not in kwargs}
            first = [own.pop(name) for name in functions.leading if name in own]
            result = functions.apply(variables[PARAMS], *first, *args, **kwargs, **own)
            return _parted(result, self.name) if functions.has_state else (result, None)

        if self._vmap is None:
            return run(args, named, key)
        return self._vmap.over_examples(run, args, named, key if functions.key_name else None)

    def _made(self, key: jax.Array, args: tuple[Any, ...]) -> Variables:
        """What `init` makes, checked."""
        functions = self.model
        if self._vmap is not None:
            args = self._vmap.example(args)
        modes = mode_values(True)
        takes = parameters_of(functions.init)
        named = {name: modes[name] for name in modes if name in takes} | self._of_init
        with noting(f"init of {self.name}", "which boltax traces"):
            if functions.takes_shape:
                shapes = [jax.tree.map(jnp.shape, arg) for arg in args[:1]]
                made = functions.init(key, *shapes, **named)
                made = made[1] if isinstance(made, tuple) and len(made) == 2 else made
            else:
                made = functions.init(key, *args, **named)
        if not functions.has_state:
            return {PARAMS: strong(_checked(made, self.name))}
        if not (isinstance(made, tuple) and len(made) == 2):
            raise ModelError(
                f"Received {describe(made, 'params')} from init of {self.name}, whose apply takes "
                "state; expected (params, state). Write return params, state."
            )
        return {PARAMS: strong(_checked(made[0], self.name)), STATE: strong(made[1])}

    def _apply_fn(
        self,
        variables: Variables,
        *args: Any,
        train: bool = False,
        rngs: Mapping[str, jax.Array] | None = None,
        mutable: Any = False,
        **kwargs: Any,
    ) -> Any:
        """`apply` as Linen has it: outputs, or ``(outputs, collections)`` with `mutable`."""
        keys = keys_from(rngs)
        return self.apply(variables, args, kwargs, train=train, keys=keys, mutable=mutable)[0]


class BoundFunctional:
    """Plain functions with their parameters, in evaluation mode: call it as ``model(inputs)``.

    Attributes:
        params: the parameters.
        state: the state, or None.
    """

    def __init__(self, adapter: FunctionalAdapter, variables: Variables, key: jax.Array) -> None:
        self.params, self.state = variables[PARAMS], variables.get(STATE)
        self._adapter, self._variables, self._key = adapter, variables, key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapter.apply(
            self._variables, args, kwargs, train=False, keys=lambda _: self._key
        )[0]

    def __repr__(self) -> str:
        return f"BoundFunctional({self._adapter.name}, {describe(self.params, 'params')})"


def _parted(result: Any, name: str) -> tuple[Any, Any]:
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise ModelError(
        f"Received a {type(result).__name__} from apply of {name}, which takes state; expected "
        "(outputs, state). Write return outputs, state."
    )


def _checked(params: PyTree, name: str) -> PyTree:
    """Parameters whose leaves are all floating-point arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        is_array = isinstance(leaf, float) or hasattr(leaf, "dtype")
        if not is_array or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            what = str(getattr(leaf, "dtype", type(leaf).__name__))
            raise ModelError(
                f"Received {path_name(path, 'params')} of {what} from init of {name}; expected "
                "floating-point arrays, which can be trained. Keep others in the state, with "
                "apply(params, state, x), or among model_hparams."
            )
    return params
