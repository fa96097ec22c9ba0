"""Hyperparameters as JSON: Python's types kept, functions and classes by name.

Most values are themselves. Others are a dict with one key: ``{"__tuple__": [3, 3]}``,
``{"__name__": "flax.linen:relu"}``, ``{"__dtype__": "bfloat16"}``. What cannot be stored is refused
before training, or, where it is not needed for loading, noted as `NotStored`. Every value that is
stored, `_decode` gives back.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from boltax._base._containers import container_of
from boltax._base._options import SWA, CheckpointOptions, LoopOptions
from boltax.checkpoint._dtypes import is_storable
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._plain import short
from boltax.errors import HyperparameterError
from boltax.models._functional import Functional
from boltax.models._lora import Lora
from boltax.models._vmap import Vmap

MAX_DEPTH = 64
MAX_ELEMENTS = 1000
OPTIONS: dict[str, type[Any]] = {
    "LoopOptions": LoopOptions,
    "CheckpointOptions": CheckpointOptions,
    "SWA": SWA,
    "Vmap": Vmap,
    "Functional": Functional,
    "Lora": Lora,
}
BUILTINS: dict[str, type[Any]] = {"bool": bool, "int": int, "float": float, "complex": complex}


@dataclass(frozen=True)
class NotStored:
    """Stands in ``hparams.json`` for a value that could not be stored, and need not be.

    Attributes:
        description: what it was, for people.

    Example:
        >>> NotStored("GradientTransformationExtraArgs(...)")
        NotStored(description='GradientTransformationExtraArgs(...)')
    """

    description: str


def encode(value: Any, path: str, lookup: Lookup, *, lenient: bool = False) -> Any:
    """A hyperparameter as JSON.

    Args:
        value: None, bool, int, float, str, list, tuple, dict with str keys, their
            like of other libraries (stored as list and dict), NumPy scalars and small arrays,
            paths, dtypes, enum members, boltax's options, dataclasses of the trainer's module,
            modules of Linen (by class and fields), functions and classes that have a name, and
            partials of functions of jax, flax and optax.
        path: its place, for messages: ``"model_hparams['act_fn']"``.
        lookup: finds names of functions and classes.
        lenient: note what cannot be stored as `NotStored`, instead of refusing it.

    Returns:
        Plain JSON, from which `decode` makes an equal value (arrays become NumPy arrays, NumPy
        scalars numbers).

    Raises:
        HyperparameterError: for a value that cannot be stored, unless `lenient`.
    """
    try:
        return _encode(value, path, lookup, lenient, 0)
    except _UnstorableError as error:
        raise HyperparameterError(str(error)) from None


class _UnstorableError(Exception):
    """A value that has no JSON form; the message is for the user."""


class _TooDeepError(_UnstorableError):
    """A value that may contain itself."""


def _encode(value: Any, path: str, lookup: Lookup, lenient: bool, depth: int) -> Any:
    try:
        if depth > MAX_DEPTH:
            error = _unstorable(
                value, path, f"at most {MAX_DEPTH} levels", "Does it contain itself?"
            )
            raise _TooDeepError(str(error))
        container = _container(value, path)
        if isinstance(container, Mapping):
            return _encode_dict(container, path, lookup, lenient, depth)
        if container is not None:
            items = [
                _encode(v, f"{path}[{i}]", lookup, lenient, depth + 1)
                for i, v in enumerate(container)
            ]
            return {"__tuple__": items} if isinstance(container, tuple) else items
        return _encode_leaf(value, path, lookup, depth)
    except _UnstorableError as error:
        if lenient and (depth == 0 or not isinstance(error, _TooDeepError)):
            return {"__not_stored__": short(value)}
        raise


def _container(value: Any, path: str) -> Mapping[Any, Any] | list[Any] | tuple[Any, ...] | None:
    if type(value) is tuple:
        return value
    try:
        return container_of(value)
    except Exception as error:  # a library's own, such as that of a value which is still missing
        advice = f"It cannot be read: {type(error).__name__}: {str(error)[:200]}"
        raise _unstorable(value, path, "a container whose values are all there", advice) from error


def _encode_dict(
    value: Mapping[Any, Any], path: str, lookup: Lookup, lenient: bool, depth: int
) -> Any:
    for key in value:
        if not isinstance(key, str):
            raise _unstorable(key, f"{path} as a key", "strings as keys", f"Write {str(key)!r}.")
    return {
        _escaped(key): _encode(v, f"{path}[{key!r}]", lookup, lenient, depth + 1)
        for key, v in value.items()
    }


def _encode_leaf(value: Any, path: str, lookup: Lookup, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        if name := lookup.name_of(type(value)):
            return {"__enum__": [name, value.name]}
        raise _unstorable(
            value,
            path,
            f"an enum that module {lookup.own!r} has at its top level",
            "Import it there.",
        )
    if isinstance(value, np.generic) and is_storable(value.dtype) and value.dtype.kind != "c":
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if value.bit_length() > 1024:
            raise _unstorable(value, path, "a number of at most 1024 bits", "Store it as a string.")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"__float__": str(float(value))}
    if isinstance(value, np.ndarray | jax.Array):
        return {"__array__": _encode_array(value, path)}
    if isinstance(value, PurePath):
        return {"__path__": str(value)}
    if isinstance(value, NotStored):
        return {"__not_stored__": value.description}
    if isinstance(value, np.dtype) and is_storable(value):
        return {"__dtype__": value.name}
    if isinstance(value, Functional) and (name := lookup.name_of(value)):
        return {"__name__": name}
    if isinstance(value, nn.Module):
        return {"__module__": _encode_module(value, path, lookup, depth)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"__dataclass__": _encode_dataclass(value, path, lookup, depth)}
    if isinstance(value, functools.partial) and lookup.name_of(value) is None:
        return {"__partial__": _encode_partial(value, path, lookup, depth)}
    return _encode_name(value, path, lookup)


def _encode_name(value: Any, path: str, lookup: Lookup) -> Any:
    if name := lookup.name_of(value):
        return {"__name__": name}
    if isinstance(value, type):
        if value in BUILTINS.values():
            return {"__type__": value.__name__}
        if issubclass(value, np.generic) and is_storable(np.dtype(value)):
            return {"__scalar_type__": np.dtype(value).name}
    if callable(value):
        own = f"or one that module {lookup.own!r}, where the trainer is, has at its top level"
        advice = "Define it there, or import it there if it is a model or your own code."
        raise _unstorable(value, path, f"a function or class of jax, flax or optax, {own}", advice)
    advice = "Convert it to one of these, or keep it as an attribute of your subclass."
    raise _unstorable(
        value,
        path,
        "numbers, strings, lists, tuples, dicts, small arrays, dtypes, functions",
        advice,
    )


def _encode_array(value: Any, path: str) -> Any:
    if not is_storable(value.dtype) or value.dtype.name.startswith("complex"):
        raise _unstorable(value, path, "an array of real numbers or bools", "Convert it.")
    if max(value.size, *value.shape, 0) > MAX_ELEMENTS:
        raise _unstorable(
            value, path, f"an array of at most {MAX_ELEMENTS} elements", "Load it in your subclass."
        )
    flat = [
        item if math.isfinite(item) else str(item) for item in np.asarray(value).ravel().tolist()
    ]
    return {"dtype": value.dtype.name, "shape": list(value.shape), "values": flat}


def _encode_dataclass(value: Any, path: str, lookup: Lookup, depth: int) -> Any:
    kind = type(value)
    if is_module(kind):  # of Equinox, whose arrays are no hyperparameters
        advice = (
            f"Write its class and its arguments ({kind.__name__}, and a dict of them) as two "
            "hyperparameters, and build it in the model."
        )
        raise _unstorable(value, path, "no module that is built already", advice)
    name = f"boltax:{kind.__name__}" if kind in OPTIONS.values() else lookup.name_of(kind)
    if name is None or not name.startswith(("boltax:", "trainer:")):
        advice = "Hand over the class and its arguments, and build it in the model."
        raise _unstorable(
            value, path, f"a dataclass that module {lookup.own!r} has at its top level", advice
        )
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {
        "name": name,
        "fields": {
            k: _encode(v, f"{path}.{k}", lookup, False, depth + 1) for k, v in fields.items()
        },
    }


def _encode_module(value: nn.Module, path: str, lookup: Lookup, depth: int) -> Any:
    """A module of Linen by its class and its fields; it is built again when it is loaded."""
    kind = type(value)
    name = lookup.name_of(kind)
    if name is None or value.scope is not None:
        advice = (
            f"Import its class there, or write its class and its arguments ({kind.__name__}, and "
            "a dict of them) as two hyperparameters, and build it in the model."
        )
        raise _unstorable(
            value, path, f"a module whose class module {lookup.own!r} has at its top level", advice
        )
    given = {
        field.name: getattr(value, field.name)
        for field in module_fields(kind)
        if not _is_default(getattr(value, field.name), field)
    }
    encoded = {k: _encode(v, f"{path}.{k}", lookup, False, depth + 1) for k, v in given.items()}
    return {"name": name, "fields": encoded}


def module_fields(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields with which a module of Linen is built."""
    return [field for field in dataclasses.fields(kind) if field.init and field.name != "parent"]


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field need not be stored; the initializers of layers have no name of their own."""
    is_plain = isinstance(value, bool | int | float | str | tuple) or value is None
    return value is field.default or (
        is_plain and type(value) is type(field.default) and value == field.default
    )


def _encode_partial(value: Any, path: str, lookup: Lookup, depth: int) -> Any:
    name = lookup.name_of(value.func)
    if name is None or name.startswith("trainer:"):
        advice = f"Write a function in module {lookup.own!r}, and hand over that one."
        raise _unstorable(value, path, "a partial of a function of jax, flax or optax", advice)
    return {
        "name": name,
        "args": [
            _encode(v, f"{path}.args[{i}]", lookup, False, depth + 1)
            for i, v in enumerate(value.args)
        ],
        "kwargs": _encode_dict(value.keywords, f"{path}.keywords", lookup, False, depth + 1),
    }


def is_module(kind: type) -> bool:
    """Whether a class is a model's; Linen's are dataclasses too, but no configuration."""
    return any(base.__name__ == "Module" for base in kind.__mro__)


def _escaped(key: str) -> str:
    return f"__key__{key}" if key.startswith("__") else key


def _unstorable(value: object, path: str, expected: str, advice: str) -> _UnstorableError:
    return _UnstorableError(
        f"Received {path} = {short(value)} ({type(value).__name__}), which cannot be stored in "
        f"hparams.json; expected {expected}. {advice}"
    )
