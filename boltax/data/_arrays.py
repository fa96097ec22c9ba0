"""One leaf of a batch as a host array: from NumPy, PyTorch, TensorFlow, JAX or a Python number.

May not import torch or tensorflow: a value of theirs is recognised by the names of its type's
bases, so that a program which uses neither pays for neither.
"""

import sys
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np


def is_a(value: object, package: str, class_name: str) -> bool:
    """Whether `value` is an instance of a class of `package`, without importing that package.

    Args:
        value: anything.
        package: the top-level package, e.g. ``"torch"``.
        class_name: the class, or base class, that is asked for, e.g. ``"DataLoader"``.
    """
    return _derives_from(type(value), package, class_name)


@lru_cache(maxsize=1024)
def _derives_from(cls: type, package: str, class_name: str) -> bool:
    return any(
        base.__name__ == class_name and base.__module__.partition(".")[0] == package
        for base in cls.__mro__
    )


def to_array(leaf: Any) -> Any:
    """The leaf as a NumPy array; JAX arrays, and what is no array at all, come back unchanged.

    Tensors share their memory with the result where the framework allows it. Arrays of foreign
    byte order, which JAX refuses, are turned into native ones.

    Args:
        leaf: a NumPy array or scalar, a tensor, a JAX array, a Python number, or anything with
            ``__array__``.

    Returns:
        A `numpy.ndarray`, a `jax.Array`, or `leaf` itself where there is no conversion.
    """
    if isinstance(leaf, jax.Array):
        return leaf
    if is_a(leaf, "torch", "Tensor"):
        return _from_torch(leaf)
    if is_a(leaf, "tensorflow", "Tensor"):
        leaf = leaf.numpy()
    if isinstance(leaf, np.ma.MaskedArray | type):
        return leaf  # asarray() would drop the mask without a word
    if isinstance(leaf, bool | int | float | complex) or hasattr(leaf, "__array__"):
        array = np.asarray(leaf)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return leaf


def _from_torch(tensor: Any) -> Any:
    torch: Any = sys.modules["torch"]  # there is a tensor, so it is there
    if tensor.layout != torch.strided or tensor.is_nested:
        return tensor
    dtype_name = str(tensor.dtype).removeprefix("torch.")
    if dtype_name != "bfloat16" and not dtype_name.startswith("float8"):
        return tensor.numpy(force=True)
    # NumPy knows these dtypes through ml_dtypes only, torch does not: pass the bits
    bits = tensor.detach().cpu().view(torch.int16 if dtype_name == "bfloat16" else torch.uint8)
    return bits.numpy().view(getattr(ml_dtypes, dtype_name))


def is_numeric(dtype: Any) -> bool:
    """Whether JAX can hold arrays of this NumPy dtype: booleans, numbers, ml_dtypes' small ones."""
    if dtype.kind in "biufc":
        return dtype.char not in "gG"  # long double
    return bool(jnp.issubdtype(dtype, np.number))
