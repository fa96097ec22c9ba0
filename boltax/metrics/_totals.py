"""Sums in two words: exact for integers up to 2**61, and of double the precision for floats.

One word is too small for a run: int32 wraps at 2**31, and a float32 sum stands still at 2**24 times
what is added. Two of them cost a few scalar operations at each step, and no float64, which JAX has
only where it was switched on. All zeros are the sum of nothing.

All but `value` is pure and may be traced.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from boltax._base._trees import wide
from boltax.errors import MetricsError
from boltax.parallel._devices import is_on_cpu

_BITS = 31
_LOW = 2**_BITS - 1
_ROWS = 8


@struct.dataclass
class IntTotal:
    """Sums of integers, ``high * 2**31 + low``.

    Attributes:
        words: int32 ``[..., 2]``: `high` and `low` of each sum, the latter at least 0.
    """

    words: jax.Array

    @classmethod
    def of(cls, high: jax.Array, low: jax.Array) -> "IntTotal":
        """Sums of their words, ``[...]`` each."""
        return cls(jnp.stack([high, low], axis=-1))

    def __add__(self, other: "IntTotal") -> "IntTotal":
        """The sums of both."""
        high, low = _split(jnp.add(self.words, other.words))
        # A low word past 2**31 wraps: its sign is what it carries.
        carried = lax.shift_right_logical(low, jnp.full_like(low, _BITS))
        return IntTotal(lax.concatenate([high + carried, low & _LOW], low.ndim - 1))

    def value(self) -> Any:
        """The sums on the host: NumPy, int64."""
        words = np.asarray(self.words, np.int64)
        return words[..., 0] * 2**_BITS + words[..., 1]

    def rounded(self) -> jax.Array:
        """The sums in float32, on the device."""
        words = self.words.astype(jnp.float32)
        return words[..., 0] * 2.0**_BITS + words[..., 1]

    def __int__(self) -> int:
        """The sum as an integer of Python, where it is one."""
        return int(self.value())


@struct.dataclass
class FloatTotal:
    """Sums of floating-point numbers, ``high + low``.

    Attributes:
        words: float32 or float64 ``[..., 2]``: each sum as it is rounded, and what is missing.
    """

    words: jax.Array

    @classmethod
    def of(cls, values: jax.Array) -> "FloatTotal":
        """Numbers as sums."""
        behind = [(0, 0, 0)] * values.ndim + [(0, 1, 0)]
        return cls(lax.pad(values[..., None], jnp.zeros((), values.dtype), behind))

    def __add__(self, other: "FloatTotal") -> "FloatTotal":
        """The sums of both, with the error of their rounding (Knuth's two-sum)."""
        (left, _), (right, _) = _split(self.words), _split(other.words)
        total, low = _split(jnp.add(self.words, other.words))
        part = total - left
        error = (left - (total - part)) + (right - part)
        # Of an infinite sum the error is NaN, and would make the sum NaN, too.
        low = lax.select(lax.is_finite(total), low + error, jnp.zeros_like(low))
        high = total + low
        return FloatTotal(lax.concatenate([high, low - (high - total)], low.ndim - 1))

    def value(self) -> Any:
        """The sums on the host: NumPy, float64."""
        words = np.asarray(self.words, np.float64)
        high, low = words[..., 0], words[..., 1]
        return high + np.where(np.isfinite(high) & np.isfinite(low), low, 0.0)

    def rounded(self) -> jax.Array:
        """The sums in one word, on the device."""
        return self.words[..., 0]


Total: TypeAlias = IntTotal | FloatTotal


def total_of(value: Any, name: str = "") -> Any:
    """Numbers as the totals that they are: of JAX, of NumPy or of Python, and of any shape.

    What is a total already stays as it is, and so does what JAX puts in its place.

    Args:
        value: the numbers.
        name: whose they are, for the error.

    Raises:
        MetricsError: for texts, lists and the like.
    """
    if isinstance(value, str | bytes | list | tuple | dict | set):
        raise MetricsError(
            f"Received {type(value).__name__} for {name}; expected an array or a number. Write for "
            "instance jnp.stack(values) for a list of arrays."
        )
    if isinstance(value, jax.Array):
        return _product(value, 1)
    is_number = isinstance(value, bool | int | float | np.generic | np.ndarray)
    return host_total(np.asarray(value)) if is_number else value


def total_of_mean(mean: Any, count: int) -> Total:
    """The sum over so many examples with a given mean."""
    if isinstance(mean, jax.Array):
        return _product(mean, count)
    return host_total(np.asarray(mean, _host_dtype(mean)) * count)


def total_over(values: Any) -> Total:
    """The sum over all entries of an array ``[...]``."""
    if not isinstance(values, jax.Array):
        return host_total(np.sum(values, dtype=_host_dtype(values)))
    if is_float(values.dtype):
        return FloatTotal.of(_added_up(values.astype(wide(values.dtype))))
    parts = _parts(values, _width_for(values.size))
    return _joined([(jnp.sum(part, dtype=jnp.int32), shift) for part, shift in parts])


def count_of(examples: int | jax.Array, entries: int = 1) -> IntTotal:
    """How many numbers so many examples have, each with so many of them.

    Args:
        examples: below 2**31; where it is no array, so is nothing in the result.
        entries: numbers in an example.
    """
    if not isinstance(examples, jax.Array):
        total: Any = host_total(np.asarray(examples * entries, np.int64))
        return total
    if entries == 1:
        return IntTotal.of(jnp.zeros_like(examples), examples)
    product: Any = _product(examples, entries)
    return product


def host_total(values: Any, dtype: Any = None) -> Total:
    """Numbers on the host as the totals that they are, in NumPy.

    Args:
        values: NumPy, of any shape; integers below 2**61.
        dtype: of the words of a floating-point total; None for the one that JAX would give it.
    """
    if not is_float(values.dtype):
        whole = values.astype(np.int64)
        integers: Any = np.stack([whole >> _BITS, whole & _LOW], axis=-1).astype(np.int32)
        return IntTotal(integers)
    exact = values.astype(np.float64)
    dtype = dtype or jax.dtypes.canonicalize_dtype(wide(values.dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        high = np.asarray(exact.astype(dtype))
        low = np.where(np.isfinite(high), exact - high, 0.0)
        words: Any = np.stack([high, low.astype(dtype)], axis=-1)
    return FloatTotal(words)


def is_float(dtype: Any) -> bool:
    """Whether numbers of this dtype are floating-point ones, of any precision."""
    return jnp.issubdtype(dtype, jnp.floating)


def _host_dtype(values: Any) -> Any:
    return np.float64 if is_float(np.asarray(values).dtype) else np.int64


def _product(values: jax.Array, count: int) -> Total:
    """Each of the values so many times."""
    if is_float(values.dtype):
        return FloatTotal.of(values.astype(wide(values.dtype)) * count)
    parts = _parts(values, _width_for(count))
    return _joined([(part * count, shift) for part, shift in parts])


def _width_for(count: int) -> int:
    """The bits of a number of which int32 holds so many added up."""
    return max(_BITS - max(count - 1, 0).bit_length(), 1)


def _parts(values: jax.Array, width: int) -> list[tuple[jax.Array, int]]:
    """Integers cut into int32 numbers of at most so many bits: ``sum(part * 2**shift)``."""
    if values.dtype == jnp.bool_:
        return [(values.astype(jnp.int32), 0)]
    bits = jnp.iinfo(values.dtype).bits
    values = values.astype(jnp.int32) if bits < 32 else values
    found: list[tuple[jax.Array, int]] = []
    for shift in range(0, bits, width):
        part = values >> shift if shift else values
        if shift + width < bits:  # the highest part keeps the sign
            part = part & (2**width - 1)
        found.append((part.astype(jnp.int32), shift))
    return found


def _joined(parts: list[tuple[jax.Array, int]]) -> IntTotal:
    totals = [_shifted(part, shift) for part, shift in parts]
    joined = totals[0]
    for total in totals[1:]:
        joined = joined + total
    return joined


def _shifted(values: jax.Array, shift: int) -> IntTotal:
    """``values * 2**shift``, of int32."""
    if shift >= _BITS:
        return IntTotal.of(values << (shift - _BITS), jnp.zeros_like(values))
    low = values << shift if shift else values
    return IntTotal.of(values >> (_BITS - shift), low & _LOW)


def _added_up(values: jax.Array) -> jax.Array:
    """The sum of all entries, with an error of a few roundings.

    An accelerator adds in a tree. XLA on a CPU adds up to 32 numbers one after the other, which for
    equal numbers is off by up to 1e-6; halves upon halves take no longer.
    """
    if not is_on_cpu():
        return jnp.sum(values)
    row = jnp.ravel(values)
    while row.size > 1:
        size = -(-row.size // _ROWS)
        if missing := size * _ROWS - row.size:
            row = lax.pad(row, jnp.zeros((), row.dtype), [(0, missing, 0)])
        rows = lax.split(row, [size] * _ROWS)
        while len(rows) > 1:
            rows = [left + right for left, right in zip(rows[::2], rows[1::2], strict=True)]
        row = rows[0]
    return jnp.sum(row)


def _split(words: Any) -> list[jax.Array]:
    """The high and the low words ``[..., 1]``."""
    return list(lax.split(jnp.asarray(words), [1, 1], words.ndim - 1))
