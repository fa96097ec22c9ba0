"""Any value for people: for loggers, and for the readable part of ``hparams.json``."""

import dataclasses
import enum
import functools
import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

from boltax._base._containers import container_of

_MOST_ELEMENTS = 100
_MOST_LEVELS = 20
_MOST_BITS = 63
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = 100


def plain(value: Any) -> Any:
    """A value as JSON to be read by people and shown by loggers; `decode` makes nothing of it.

    Args:
        value: anything.

    Returns:
        None, bool, int, float, str, and lists and dicts of these. Functions and classes become
        their names, tuples lists, large arrays their dtype and shape, and NaN and infinities words.

    Example:
        >>> plain({"sizes": (3, 3), "dtype": np.dtype("float32"), "act_fn": abs})
        {'sizes': [3, 3], 'dtype': 'float32', 'act_fn': 'abs'}
    """
    return _plain(value, 0)


def short(value: object) -> str:
    """A representation of at most about a hundred characters, without addresses in memory."""
    return _ADDRESS.sub("", _repr.repr(value))


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is int and value.bit_length() > _MOST_BITS:
        return str(value)  # loggers and other readers of JSON have no such number
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth < _MOST_LEVELS:
        container = container_of(value)
        if isinstance(container, Mapping):
            return {str(key): _plain(item, depth + 1) for key, item in container.items()}
        value = value if container is None else container
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(item, depth + 1) for item in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                f.name: _plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)
            }
    return _text_of(value)


def _text_of(value: Any) -> Any:
    if isinstance(value, np.ndarray | jax.Array):
        if value.size <= _MOST_ELEMENTS and isinstance(value.dtype, np.dtype):
            return _plain(np.asarray(value).tolist(), 0)
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, functools.partial):
        return (
            f"partial({_text_of(value.func)})"
            if not value.keywords and not value.args
            else short(value)
        )
    name = getattr(value, "__name__", None)
    return name if callable(value) and isinstance(name, str) else short(value)
