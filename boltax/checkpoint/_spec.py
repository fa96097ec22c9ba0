"""An example batch as JSON, and a batch of zeros of that shape: enough to initialise a model.

The values are not stored. A batch may be any pytree of arrays; a class that cannot be found again
by name is noted, and whoever loads the run is told to hand in an example.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from boltax._base._types import Batch
from boltax.checkpoint._dtypes import dtype_named, is_storable
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._plain import short
from boltax.errors import CheckpointError

MAX_BYTES = 2**30
_MAX_DEPTH = 64


def batch_spec(batch: Batch, lookup: Lookup) -> Any:
    """The shapes of a batch as JSON.

    Args:
        batch: any nesting of dicts, lists, tuples, and named tuples or dataclasses of the trainer's
            module, with arrays, numbers, strings and None in it.
        lookup: finds names for classes.

    Returns:
        Plain JSON for `zeros_from_spec`. What has no JSON form is described for people, and nothing
        is raised.

    Example:
        >>> batch_spec((np.zeros((8, 2), np.float32), None), Lookup(None))
        {'tuple': [{'array': [8, 2], 'dtype': 'float32'}, {'value': None}]}
    """
    return _spec(batch, lookup, 0)


def zeros_from_spec(spec: Any, lookup: Lookup) -> Batch:
    """A batch of NumPy zeros.

    Args:
        spec: JSON from `batch_spec`, or from anybody.
        lookup: finds classes by name.

    Returns:
        The batch, in the containers that it had.

    Raises:
        CheckpointError: when the batch could not be stored, the JSON is damaged, or asks for too
            much.
    """
    if (size := _bytes(spec, 0)) > MAX_BYTES:
        raise _unusable(f"an example batch of {size:,} bytes", f"at most {MAX_BYTES:,}")
    try:
        return _zeros(spec, lookup)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _unusable(
            f"the stored example batch {short(spec)}", "one as boltax writes it"
        ) from error


def _spec(node: Any, lookup: Lookup, depth: int) -> Any:
    def inner(child: Any) -> Any:
        return _spec(child, lookup, depth + 1)

    if _is_plain(node):
        return {"value": node}
    if depth <= _MAX_DEPTH:
        if isinstance(node, Mapping) and all(isinstance(key, str) for key in node):
            return {"dict": {key: inner(child) for key, child in node.items()}}
        if type(node) is list or type(node) is tuple:
            return {type(node).__name__: [inner(child) for child in node]}
        if fields := _fields(type(node)):
            name = lookup.name_of(type(node))
            if name is not None and name.startswith("trainer:"):
                inside = {field: inner(getattr(node, field)) for field in fields}
                return {"class": name, "fields": inside}
        if (array := _array(node)) is not None:
            return {"array": [int(size) for size in array[0]], "dtype": array[1].name}
    return {"not_stored": short(node)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, np.generic):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, bool | str | int) and not _is_huge(value))


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= 2**63


def _fields(kind: type) -> list[str]:
    if issubclass(kind, tuple):
        return list(getattr(kind, "_fields", ()))
    return (
        [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    )


def _array(node: Any) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and type of an array of any library; those that JAX knows are not copied."""
    if not hasattr(node, "dtype"):
        return None
    if not isinstance(node.dtype, np.dtype) and not isinstance(node, jax.Array):
        try:
            node = np.asarray(node)  # a torch or TensorFlow tensor
        except (TypeError, ValueError, RuntimeError):
            return None
    return (tuple(node.shape), node.dtype) if is_storable(node.dtype) else None


def _bytes(spec: Any, depth: int) -> int:
    if depth > 3 * _MAX_DEPTH:
        raise _unusable("an example batch of too many levels", f"at most {_MAX_DEPTH}")
    if isinstance(spec, dict) and isinstance(shape := spec.get("array"), list):
        if not all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in shape
        ):
            raise _unusable(f"an array of shape {short(shape)}", "sizes from 0")
        axes = (max(1, n) for n in shape)  # an empty one may have an axis that makes others large
        return math.prod(axes) * dtype_named(spec.get("dtype")).itemsize
    children = (
        list(spec.values()) if isinstance(spec, dict) else spec if isinstance(spec, list) else []
    )
    return sum(_bytes(child, depth + 1) for child in children)


def _zeros(spec: Any, lookup: Lookup) -> Any:
    (kind, value), *_ = spec.items()
    if kind == "value" and (value is None or isinstance(value, bool | int | float | str)):
        return value
    if kind == "array" and isinstance(value, list):
        return np.zeros(value, dtype_named(spec["dtype"]))
    if kind == "dict":
        return {key: _zeros(child, lookup) for key, child in value.items()}
    if kind in ("list", "tuple"):
        children = [_zeros(child, lookup) for child in value]
        return children if kind == "list" else tuple(children)
    if kind == "class":
        return _instance(
            value, {name: _zeros(child, lookup) for name, child in spec["fields"].items()}, lookup
        )
    if kind == "not_stored":
        raise _unusable(
            f"a run whose example batch held {value!s:.100}", "a batch of arrays that can be stored"
        )
    raise ValueError(kind)


def _instance(name: str, values: dict[str, Any], lookup: Lookup) -> Any:
    """A named tuple or dataclass with these fields, made without calling its code."""
    kind = lookup.find(name)
    if (
        not name.startswith("trainer:")
        or not isinstance(kind, type)
        or _fields(kind) != list(values)
    ):
        raise TypeError(name)
    if issubclass(kind, tuple):
        return tuple.__new__(kind, values.values())
    instance = object.__new__(kind)
    for field, value in values.items():
        object.__setattr__(instance, field, value)
    return instance


def _unusable(received: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"Received {received}; expected {expected}. Hand in an example batch: "
        "load_from_checkpoint(folder, exmp_input=next(iter(train_loader)))."
    )
