"""Array types by name, from a closed set: NumPy parses no name out of a file unchecked."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax.errors import CheckpointError

_NAME = re.compile(
    r"bool|bfloat16|u?int\d{1,2}|complex\d{2,3}|float\d{1,2}(_e\d{1,2}m\d{1,2}(b\d{1,2})?(fn|fnu|fnuz)?)?"
)


def is_key(dtype: Any) -> bool:
    """Whether this is the type of typed random keys."""
    return bool(jnp.issubdtype(dtype, jax.dtypes.prng_key))


def is_storable(dtype: object) -> bool:
    """Whether arrays of this type can be stored: numbers and bools, not objects, text or dates."""
    return isinstance(dtype, np.dtype) and _NAME.fullmatch(dtype.name) is not None


def dtype_named(name: object) -> np.dtype:
    """The array type of a name.

    Args:
        name: ``"float32"``, ``"bfloat16"``, ``"int4"``, ...

    Raises:
        CheckpointError: when it names no type of numbers.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        try:
            return jnp.dtype(name)
        except TypeError:
            pass
    raise CheckpointError(
        f"Received the array type {str(name)[:80]!r} in a checkpoint; expected a name such as "
        "'float32', 'bfloat16', 'int32' or 'bool'. The file is damaged, or was written by another "
        "program: restore it from a copy."
    )
