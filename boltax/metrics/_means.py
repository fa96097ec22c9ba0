"""Means over a data set, and what a metric of one batch becomes, by its form."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from boltax._base._trees import describe_leaf
from boltax.errors import MetricsError
from boltax.metrics._totals import count_of, total_of, total_of_mean, total_over

_EXPECTED = (
    "a scalar, an array [batch, ...] with a value per example, a pair (total, count), or an object "
    "with merge() and compute()"
)
_LARGEST = 2**31


@struct.dataclass
class Mean:
    """A weighted mean under way, made of a total and a count: numbers, or arrays.

    Attributes:
        total: what is added up, in two words.
        count: what it is divided by, likewise.

    Example:
        >>> float(Mean(jnp.float32(6.0), 2).merge(Mean(jnp.float32(3.0), 1)).compute())
        3.0
    """

    total: Any
    count: Any

    def __post_init__(self) -> None:
        """Turns numbers into their two words."""
        object.__setattr__(self, "total", total_of(self.total, "the total of a mean"))
        object.__setattr__(self, "count", total_of(self.count, "the count of a mean"))

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both."""
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> Any:
        """Total over count; in NumPy, at double precision."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(self.total.value(), self.count.value(), dtype=np.float64)

    def rounded(self) -> jax.Array:
        """Total over count on the device, in one word."""
        return self.total.rounded() / self.count.rounded().astype(self.total.rounded().dtype)


def are_per_example(step_metrics: Mapping[str, Any], num_examples: int) -> bool:
    """Whether all metrics of a batch have a value for each example, so that some can be left out.

    Example:
        >>> are_per_example({"loss": jnp.zeros(3), "acc": jnp.zeros((3, 7), bool)}, num_examples=3)
        True
    """
    values = step_metrics.values() if isinstance(step_metrics, Mapping) else ()
    return all(
        isinstance(value, jax.Array) and value.shape[:1] == (num_examples,) for value in values
    )


def as_mergeable(name: str, value: Any, num_examples: int, real: jax.Array | None = None) -> Any:
    """A metric of one batch as an object with `merge` and `compute`.

    Args:
        name: the metric's name.
        value: what a step returned for it.
        num_examples: the batch's number of examples.
        real: how many of them count, int32; for a value for each example.

    Raises:
        MetricsError: for a value that is none of the four forms.
    """
    value = _checked(name, value, num_examples)
    if is_mergeable(value):
        return value
    if isinstance(value, tuple):
        return Mean(*value)
    if value.ndim == 0:
        return Mean(total_of_mean(value, num_examples), count_of(num_examples))
    if real is not None:
        is_real = jnp.arange(num_examples) < real
        is_real = is_real.reshape(-1, *(1,) * (value.ndim - 1))
        value = jnp.where(is_real, value, jnp.zeros_like(value))
    entries = value.size // num_examples if num_examples else 1
    return Mean(total_over(value), count_of(num_examples if real is None else real, entries))


def is_by_examples(value: Any) -> bool:
    """Whether a metric of one batch is counted by the number of examples, and needs no other."""
    return not isinstance(value, tuple) and not is_mergeable(value) and np.ndim(value) <= 1


def held(name: str, value: Any, num_examples: int) -> Any:
    """A metric of one batch as JAX can return it: as it is, or if int32 does not hold it, merged.

    Raises:
        MetricsError: for a value that is no metric.
    """
    _checked(name, value, num_examples)
    parts = value if isinstance(value, tuple) else (value,)
    is_large = any(map(_is_large, parts))
    return as_mergeable(name, value, num_examples) if is_large else value


def is_mergeable(value: Any) -> bool:
    """Whether a metric is an object that accumulates itself."""
    return callable(getattr(value, "merge", None)) and callable(getattr(value, "compute", None))


def _is_large(part: Any) -> bool:
    """Whether a number of Python or NumPy is an integer that int32 does not hold."""
    if not isinstance(part, int | np.integer | np.ndarray):
        return False
    array = np.asarray(part)
    is_integer = np.issubdtype(array.dtype, np.integer)
    return bool(is_integer and array.size and np.abs(array.astype(np.float64)).max() >= _LARGEST)


def _checked(name: str, value: Any, num_examples: int) -> Any:
    """A metric of one batch: an object, a pair of arrays, or an array."""
    if not isinstance(name, str):
        raise MetricsError(f"Received a metric named {name!r}; expected a string.")
    if is_mergeable(value):
        return value
    if isinstance(value, tuple):
        return _pair(name, value)
    array = _number(name, value)
    if array.shape[:1] in ((), (num_examples,)):
        return array
    raise MetricsError(
        f"Received metric {name!r} with {describe_leaf(array)} for a batch of {num_examples} "
        f"examples; expected {_EXPECTED}. Reduce the other axes first, or write a pair of "
        "arrays for a value per class: (totals [classes], counts [classes])."
    )


def _pair(name: str, value: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(value) == 2:
        total, count = (_number(name, part) for part in value)
        if count.shape in ((), total.shape):
            return total, count
    raise MetricsError(
        f"Received metric {name!r} as a tuple of {', '.join(map(_describe, value)) or 'nothing'}; "
        f"expected {_EXPECTED}, and the count to be one number, or of the shape of the total. "
        "Write for instance ((loss * mask).sum(), mask.sum())."
    )


def _describe(value: Any) -> str:
    return describe_leaf(value) if hasattr(value, "dtype") else type(value).__name__


def _number(name: str, value: Any) -> Any:
    """An array of JAX as it is, and other numbers as one of NumPy."""
    array: Any = value
    if not isinstance(value, jax.Array):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # of arrays under JAX's tracing, or of several shapes
            array = _stacked(value)
    if array is not None and _is_real(array.dtype) and _fits(array):
        return array
    raise MetricsError(
        f"Received metric {name!r} of {_kind_of(value)}; expected numbers: {_EXPECTED}, with real "
        "numbers below 2**61. Give each number a name of its own, and leave out what is none."
    )


def _stacked(value: Any) -> jax.Array | None:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        return None


def _is_real(dtype: Any) -> bool:
    is_number = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
    return is_number or dtype == np.bool_


def _fits(array: Any) -> bool:
    if isinstance(array, jax.Array) or not np.issubdtype(array.dtype, np.integer) or not array.size:
        return True
    return int(array.max()) < 2**61 and int(array.min()) >= -(2**61)


def _kind_of(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"type {type(value).__name__}" if dtype is None else describe_leaf(value)
