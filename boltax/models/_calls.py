"""One call of a model: which method runs, and how it is told to train or to evaluate.

A module here is any object with methods; what its library is, is asked by its class alone.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax

from boltax._base._keys import fold_name
from boltax.errors import ModelError

Method: TypeAlias = str | Callable[..., Any] | None
"""What runs of a module: None for ``__call__``, a name, or a function of the module."""

TRAIN_NAMES = ("train", "training", "is_training")
EVAL_NAMES = ("deterministic", "use_running_average")


class Call(NamedTuple):
    """What a model was called with; arrays may be `jax.ShapeDtypeStruct`.

    Attributes:
        args: positional arguments, as the user wrote them.
        kwargs: keyword arguments, likewise.
        method: what ran.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    method: Method = None


def keys_from(rngs: Mapping[str, jax.Array] | None) -> Callable[[str], jax.Array]:
    """Keys of named streams as Linen takes them; a stream that is not named has one of its own."""
    given = dict(rngs or {})
    base = given.get("default", given.get("params"))

    def keys(name: str) -> jax.Array:
        if name in given:
            return given[name]
        return fold_name(jax.random.key(0) if base is None else base, name)

    return keys


def linen_apply(apply: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """The `apply` of an adapter as Linen has it, for ``state.apply_fn``.

    Args:
        apply: see `ModelAdapter.apply`.

    Returns:
        A function of variables and inputs that gives outputs, or ``(outputs, collections)`` with
        `mutable`.
    """

    def apply_fn(
        variables: Mapping[str, Any],
        *args: Any,
        train: bool = False,
        rngs: Mapping[str, jax.Array] | None = None,
        mutable: Any = False,
        method: Method = None,
        **kwargs: Any,
    ) -> Any:
        options: dict[str, Any] = {"train": train, "mutable": mutable, "method": method}
        return apply(variables, args, kwargs, keys=keys_from(rngs), **options)[0]

    return apply_fn


def is_nnx(kind: type) -> bool:
    """Whether a class is one of NNX modules; asked without importing NNX, which is slow."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and issubclass(kind, nnx.Module)


def is_equinox(kind: type) -> bool:
    """Whether a class is one of Equinox modules; asked without importing Equinox."""
    equinox = sys.modules.get("equinox")
    return equinox is not None and issubclass(kind, equinox.Module)


def library_class(kind: type) -> type:
    """The class of all modules of the library that a model's class is from."""
    if is_nnx(kind):
        return sys.modules["flax.nnx"].Module
    return sys.modules["equinox"].Module if is_equinox(kind) else nn.Module


def mode_values(train: bool) -> dict[str, bool]:
    """The value of each argument by which modules ask for the mode: ``train=True``, ..."""
    return {**dict.fromkeys(TRAIN_NAMES, train), **dict.fromkeys(EVAL_NAMES, not train)}


def select_method(module: Any, method: Method) -> Callable[..., Any]:
    """The callable of a module that `method` names.

    Args:
        module: the module, with its variables.
        method: None, the name of a method or of a submodule, or a function that takes the module
            first; a method of another instance counts as the function behind it, as in Flax.

    Raises:
        ModelError: when `method` is neither.
    """
    if method is None:
        return module
    if isinstance(method, str):
        return getattr(module, method)
    if callable(method):
        return functools.partial(getattr(method, "__func__", method), module)
    raise ModelError(
        f"Received method={method!r} of type {type(method).__name__}; expected a method name or a "
        'function that takes the module first. Write model(x, method="encode") or '
        "model(x, method=Model.encode)."
    )


def with_mode(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, train: bool
) -> dict[str, Any]:
    """The keyword arguments, with the mode where the function takes it and the caller said nothing.

    A function of the user's with ``**kwargs`` and none of the names gets ``train=``: if that is not
    what it wants, it fails loudly, where leaving it out could mean dropout in evaluation.

    Args:
        function: what is called; a module counts as its ``__call__``.
        args: positional arguments of the caller.
        kwargs: keyword arguments of the caller; these win.
        train: the mode.
    """
    values = mode_values(train)
    parameters = parameters_of(function)
    given = given_by_name(parameters, args, kwargs)
    named = [name for name in values if name in parameters]
    if named:
        return {**{name: values[name] for name in named if name not in given}, **kwargs}
    if _takes_any(function, parameters) and not values.keys() & kwargs.keys():
        return {**kwargs, "train": train}
    return dict(kwargs)


def explicit_mode(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool | None:
    """Whether the caller asked to train, by position or by name; None where that was left open."""
    given = given_by_name(parameters_of(function), args, kwargs)
    for name, value in mode_values(True).items():
        if isinstance(given.get(name), bool):
            return given[name] == value
    return None


def without_mode(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments without a mode that the function does not take."""
    parameters = parameters_of(function)
    modes = mode_values(True)
    takes_any = _takes_any(function, parameters)
    return {
        name: value
        for name, value in kwargs.items()
        if takes_any or name in parameters or name not in modes
    }


def takes_mode(function: Callable[..., Any]) -> bool:
    """Whether a function is told its mode by an argument."""
    return bool(with_mode(function, (), {}, train=False))


def constructor_parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class's constructor by name, without `self`.

    The signature of the class itself says less: Flax's metaclasses accept anything.
    """
    if cls.__init__ is object.__init__:
        return {}
    return dict(list(inspect.signature(cls.__init__).parameters.items())[1:])


def abstract(tree: Any) -> Any:
    """A tree with its arrays replaced by their shapes and dtypes; other leaves stay."""

    def shape(leaf: Any) -> Any:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            return leaf
        aval = jax.typeof(leaf)  # float64 of NumPy is float32 here, as in a call
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype)

    return jax.tree.map(shape, tree)


def trace_abstractly(function: Callable[[list[Call]], Any], calls: list[Call]) -> Any:
    """`jax.eval_shape` of a function of calls; a leaf that is no array (a flag) stays as it is."""
    leaves, treedef = jax.tree.flatten([(call.args, call.kwargs) for call in calls])
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]

    def run(*arrays: jax.Array) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        inputs = treedef.unflatten(filled)
        filled_calls = [
            Call(args, kwargs, call.method)
            for (args, kwargs), call in zip(inputs, calls, strict=True)
        ]
        return function(filled_calls)

    return jax.eval_shape(run, *(leaves[place] for place in places))


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function by name; none where Python does not know them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # not callable, or written in C: the call itself says so
        return {}


def given_by_name(
    parameters: Mapping[str, inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What the caller gave, by name."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [name for name, p in parameters.items() if p.kind in kinds]
    return {**dict(zip(positional, args, strict=False)), **kwargs}


def _takes_any(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a function of the user's takes any keyword argument."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_any and not _is_from_flax(function)


def _is_from_flax(function: Callable[..., Any]) -> bool:
    """Whether Flax wrote a function: ``Sequential`` gives its ``**kwargs`` to the first layer."""
    if isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return getattr(inspect.unwrap(function), "__module__", "").startswith("flax.")
