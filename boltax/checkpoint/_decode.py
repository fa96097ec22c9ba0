"""Hyperparameters from JSON that may come from anybody: names are looked up, nothing is called.

The other half of `_encode`. A value that `_encode` could not have written is an error that names
its place.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from boltax.checkpoint._dtypes import dtype_named
from boltax.checkpoint._encode import (
    BUILTINS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    OPTIONS,
    NotStored,
    is_module,
    module_fields,
)
from boltax.checkpoint._names import Lookup
from boltax.errors import CheckpointError


def decode(value: Any, lookup: Lookup, path: str = "hparams") -> Any:
    """The hyperparameter that `encode` turned into JSON.

    Args:
        value: plain JSON, from anybody.
        lookup: finds functions and classes.
        path: its place, for messages.

    Returns:
        The value. Functions and classes are looked up, and not called.

    Raises:
        CheckpointError: for anything that `encode` does not write, or a name that is not there.
    """
    return _decode(value, lookup, path, 0)


def _decode(value: Any, lookup: Lookup, path: str, depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:
        raise _damaged(path, f"more than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_decode(v, lookup, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, dict):
        tag = next(
            (key for key in value if key.startswith("__") and not key.startswith("__key__")), None
        )
        if tag is None:
            return {
                _unescaped(k): _decode(v, lookup, f"{path}[{k!r}]", depth + 1)
                for k, v in value.items()
            }
        if len(value) != 1 or tag not in _DECODERS:
            raise _damaged(path, f"a dict with the keys {sorted(value)[:5]}")
        try:
            return _DECODERS[tag](value[tag], lookup, path, depth + 1)
        except CheckpointError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise _damaged(path, f"{tag} {str(value[tag])[:80]!r}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _damaged(path, str(value))
    return value


def _decode_array(value: Any, *_: Any) -> np.ndarray:
    values, shape = (
        _of(list, value["values"]),
        tuple(_of(int, size) for size in _of(list, value["shape"])),
    )
    if (
        max(len(values), *shape, 0) > MAX_ELEMENTS  # an empty one has axes of any length
        or len(shape) > 32
        or math.prod(shape) != len(values)
    ):
        raise ValueError(shape)
    numbers = [float(item) if item in ("nan", "inf", "-inf") else item for item in values]
    if not all(isinstance(item, bool | int | float) for item in numbers):
        raise TypeError(values)
    with np.errstate(all="ignore"):
        return np.array(numbers, dtype_named(value["dtype"])).reshape(shape)


def _decode_enum(value: Any, lookup: Lookup, *_: Any) -> Any:
    kind = lookup.find(value[0])
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        raise TypeError(kind)
    return kind.__members__[_of(str, value[1])]


def _decode_dataclass(value: Any, lookup: Lookup, path: str, depth: int) -> Any:
    name, fields = _of(str, value["name"]), _of(dict, value["fields"])
    decoded = {k: _decode(v, lookup, f"{path}.{k}", depth) for k, v in fields.items()}
    module, _, attribute = name.partition(":")
    if module == "boltax":
        return OPTIONS[attribute](**decoded)
    kind = lookup.find(name)
    if not (
        module == "trainer" and isinstance(kind, type) and dataclasses.is_dataclass(kind)
    ) or is_module(kind):
        raise TypeError(kind)
    expected = [field.name for field in dataclasses.fields(kind)]
    if set(expected) != set(decoded):
        raise CheckpointError(
            f"Received {path} with the fields {sorted(decoded)}; expected those of "
            f"{kind.__name__}: {expected}. Load it with the code with which it was saved, or hand "
            "the argument to load_from_checkpoint."
        )
    instance = object.__new__(kind)  # without __init__: loading calls no code
    for field, item in decoded.items():
        object.__setattr__(instance, field, item)
    return instance


def _decode_module(value: Any, lookup: Lookup, path: str, depth: int) -> Any:
    """A module of Linen, built by its class: it is a value, and computes nothing yet."""
    kind, fields = lookup.find(_of(str, value["name"])), _of(dict, value["fields"])
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(kind)
    known = [field.name for field in module_fields(kind)]
    if unknown := set(fields) - set(known):
        raise CheckpointError(
            f"Received {path} with the fields {sorted(unknown)}; expected those of "
            f"{kind.__name__}: {known}. Load it with the code with which it was "
            "saved, or hand the argument to load_from_checkpoint."
        )
    return kind(**{k: _decode(v, lookup, f"{path}.{k}", depth) for k, v in fields.items()})


def _decode_partial(value: Any, lookup: Lookup, path: str, depth: int) -> Any:
    name = _of(str, value["name"])
    if name.startswith("trainer:"):
        raise ValueError(name)
    args = _decode(_of(list, value["args"]), lookup, path, depth)
    return functools.partial(
        lookup.find(name), *args, **_decode(_of(dict, value["kwargs"]), lookup, path, depth)
    )


def _decode_float(value: Any, *_: Any) -> float:
    if value not in ("nan", "inf", "-inf"):
        raise ValueError(value)
    return float(value)


_DECODERS: dict[str, Callable[..., Any]] = {
    "__tuple__": lambda value, lookup, path, depth: tuple(
        _decode(_of(list, value), lookup, path, depth)
    ),
    "__float__": _decode_float,
    "__array__": _decode_array,
    "__path__": lambda value, *_: Path(_of(str, value)),
    "__dtype__": lambda value, *_: dtype_named(value),
    "__scalar_type__": lambda value, *_: dtype_named(value).type,
    "__type__": lambda value, *_: BUILTINS[_of(str, value)],
    "__enum__": _decode_enum,
    "__dataclass__": _decode_dataclass,
    "__module__": _decode_module,
    "__partial__": _decode_partial,
    "__name__": lambda value, lookup, *_: lookup.find(value),
    "__not_stored__": lambda value, *_: NotStored(_of(str, value)),
}


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(value)
    return value


def _unescaped(key: str) -> str:
    return key.removeprefix("__key__")


def _damaged(path: str, received: str) -> CheckpointError:
    return CheckpointError(
        f"Received {received} at {path} of stored hyperparameters; expected a value as boltax "
        "writes it. The file is damaged, or was written by another program: restore it from a "
        "copy, or hand the argument to load_from_checkpoint."
    )
