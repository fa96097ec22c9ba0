"""One array of a structure: its shape and type, and the text that stands for it.

``"float32[3, 4]"`` is an array, ``"key<threefry2x32>[2]"`` an array of random keys, and
``"python int"`` a Python number, which is stored as an array without axes.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from boltax.checkpoint._dtypes import dtype_named, is_key, is_storable
from boltax.errors import CheckpointError

Names: TypeAlias = tuple[str, ...]
"""The place of an array: names of the containers around it, and its own."""

_LEAF = re.compile(
    r"(?:key<(?P<key>\w{1,40})>|(?P<dtype>\w{1,40}))\[(?P<shape>(?:\d{1,15}(?:, \d{1,15})*)?)\]",
    re.ASCII,
)
_PYTHON = {"python bool": bool, "python int": int, "python float": float}


@dataclass(frozen=True)
class Leaf:
    """An array in a structure.

    Attributes:
        shape: its shape; for random keys that of the array of keys.
        dtype: its type; None for random keys.
        key: the name of the random generator; None for all other arrays.
        python: the type of a Python number, which is stored as an array without axes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    key: str | None = None
    python: type | None = None

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape that is stored: that of the numbers behind random keys."""
        return self.shape if self.key is None else (*self.shape, *_key_shape(self.key))

    @property
    def raw_dtype(self) -> np.dtype:
        """The type that is stored."""
        return np.dtype(np.uint32) if self.dtype is None else self.dtype

    @property
    def nbytes(self) -> int:
        """The bytes that the array takes."""
        return math.prod(self.raw_shape) * self.raw_dtype.itemsize


def leaf_of(text: Any) -> Leaf:
    """The array that a leaf of a structure stands for.

    Raises:
        CheckpointError: when it stands for none.
    """
    if isinstance(text, str) and text in _PYTHON:
        python = _PYTHON[text]
        return Leaf(
            (), np.dtype({bool: np.bool_, int: np.int64, float: np.float64}[python]), python=python
        )
    match = _LEAF.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise damaged_structure(text)
    shape = tuple(int(size) for size in match["shape"].split(", ") if size)
    if len(shape) > 32:
        raise damaged_structure(text)
    if match["key"]:
        return Leaf(shape, None, key=match["key"])
    return Leaf(shape, dtype_named(match["dtype"]))


def is_array(text: str) -> bool:
    """Whether what `walk` yields is an array."""
    return text.endswith("]") or text in _PYTHON


def leaf_text(leaf: Any, path: Names) -> str:
    """The text that stands for an array, or for a `jax.ShapeDtypeStruct`.

    Raises:
        CheckpointError: when it is neither.
    """
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
            raise unstorable(path, f"the number {leaf:.3e}", "one that fits 64 bits")
        return f"python {next(k.__name__ for k in (bool, int, float) if isinstance(leaf, k))}"
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        raise unstorable(path, f"a {type(leaf).__name__}", "arrays in dicts, lists and tuples")
    sizes = f"[{', '.join(map(str, shape))}]"
    if is_key(dtype):
        return f"key<{_key_impl(leaf)}>{sizes}"
    if not is_storable(dtype):
        raise unstorable(path, f"an array of {dtype}", "numbers or bools")
    return f"{np.dtype(dtype).name}{sizes}"


def _key_impl(leaf: Any) -> str:
    names: list[str] = []  # asked of a tracer, because a mere shape is no key that could be asked
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), leaf)
    return names[0]


def _key_shape(impl: str) -> tuple[int, ...]:
    try:
        return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"Received random keys of the generator {impl!r}, which JAX does not have; expected "
            "'threefry2x32', 'rbg' or 'unsafe_rbg'. Register the generator before loading."
        ) from error


def unstorable(path: Names, received: str, expected: str) -> CheckpointError:
    """The error for a part of a tree that cannot be saved."""
    return CheckpointError(
        f"Received {received} at {'/'.join(path) or 'the top'} of what is to be saved; expected "
        f"{expected}. Keep other values out of the state and the model's variables: make them "
        "hyperparameters or attributes."
    )


def damaged_structure(value: object) -> CheckpointError:
    """The error for a part of ``structure.json`` that boltax does not write."""
    return CheckpointError(
        f"Received {str(value)[:80]!r} in structure.json; expected an array such as 'float32[3, "
        "4]', or containers of arrays. The file is damaged, or was written by another program: "
        "restore the checkpoint from a copy."
    )
