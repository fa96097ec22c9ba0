"""Cursors: places in a data stream, held as they come and made JSON only when they are saved.

A cursor says which batch was consumed last. Loaders that keep a state of their own put it into the
cursor as it is, tensors included; encoding it for each batch would cost more than reading it.
Reading takes JSON from anybody: it makes arrays, tensors, bytes and containers, and runs nothing.
"""

import base64
import math
import sys
from typing import Any

import numpy as np

from boltax._base._types import Cursor
from boltax.data._arrays import is_a, to_array
from boltax.errors import CheckpointError, DataError

_TAG = "__kind__"
_MOST_LEVELS = 60


def consumed(after: Cursor | None, epoch: int) -> int:
    """How many batches of an epoch a cursor says are consumed."""
    return after["batch"] if after is not None and after["epoch"] == epoch else 0


def cursor_to_json(cursor: Cursor) -> Any:
    """The cursor as plain JSON.

    Raises:
        DataError: for a part that has no JSON form; names it.

    Example:
        >>> cursor_to_json({"epoch": 1, "batch": 2, "seen": (1, 2)})
        {'epoch': 1, 'batch': 2, 'seen': {'__kind__': 'tuple', 'items': [1, 2]}}
    """
    return _encoded(cursor, "cursor")


def cursor_from_json(value: Any) -> Cursor:
    """The cursor that `cursor_to_json` made plain.

    Raises:
        CheckpointError: for anything else.
    """
    try:
        cursor = _decoded(value, 0)
        if not isinstance(cursor, dict) or not all(
            type(cursor.get(name)) is int and cursor[name] >= 0 for name in ("epoch", "batch")
        ):
            raise ValueError("it has no epoch and batch")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"Received the cursor {str(value)[:80]} in a checkpoint ({error}); expected a place in "
            "the training data as boltax writes it. Restore the checkpoint from a copy."
        ) from error
    return cursor


def _encoded(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "text": repr(value)}
    if isinstance(value, list):
        return [_encoded(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, tuple | set | frozenset):
        kind = "tuple" if isinstance(value, tuple) else "set"
        items = list(value) if kind == "tuple" else sorted(value, key=repr)
        return {_TAG: kind, "items": _encoded(items, where)}
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != _TAG for key in value):
            return {key: _encoded(item, f"{where}[{key!r}]") for key, item in value.items()}
        return {_TAG: "dict", "items": _encoded([list(pair) for pair in value.items()], where)}
    if isinstance(value, bytes):
        return {_TAG: "bytes", "data": base64.b64encode(value).decode()}
    is_tensor = is_a(value, "torch", "Tensor")
    array: Any = to_array(value) if is_tensor else value
    if isinstance(array, np.ndarray | np.generic) and array.dtype.kind in "biufc":
        form = {"dtype": array.dtype.name, "shape": list(array.shape)}
        data = base64.b64encode(array.tobytes()).decode()
        return {_TAG: "tensor" if is_tensor else "array", **form, "data": data}
    raise DataError(
        f"Received {where} of type {type(value).__name__} in the state of a loader; expected "
        "numbers, text, bytes, arrays, tensors and containers of these. Leave it out of the "
        "loader's state_dict."
    )


def _decoded(value: Any, depth: int) -> Any:
    if depth > _MOST_LEVELS:
        raise ValueError("it has too many levels")
    if isinstance(value, list):
        return [_decoded(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_TAG)
    if kind is None:
        return {key: _decoded(item, depth + 1) for key, item in value.items()}
    if kind == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["text"]]
    if kind in ("tuple", "set"):
        items = _decoded(value["items"], depth + 1)
        return tuple(items) if kind == "tuple" else set(items)
    if kind == "dict":
        return dict(_decoded(pair, depth + 1) for pair in value["items"])
    data = base64.b64decode(value["data"], validate=True)
    if kind == "bytes":
        return data
    if kind not in ("array", "tensor"):
        raise ValueError(f"unknown kind {str(kind)[:40]!r}")
    array = np.frombuffer(data, _dtype(value["dtype"])).reshape(value["shape"]).copy()
    if kind == "array":
        return array
    torch = sys.modules.get("torch")
    if torch is None:
        raise ValueError("it holds tensors, and the program has not imported torch")
    return torch.from_numpy(array)


def _dtype(name: Any) -> Any:
    if not isinstance(name, str):
        raise TypeError("a dtype is a text")
    dtype = np.dtype(name)
    if dtype.kind not in "biufc":
        raise ValueError(f"{name[:40]!r} is no type of numbers")
    return dtype
