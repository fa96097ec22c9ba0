"""What users hand to loggers, brought into one form: scalars, hyperparameters, histograms.

Every logger reads its arguments through these functions, so that all of them accept the same
values. Nothing is written here.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import jax
import numpy as np

from boltax._base._trees import describe_leaf

Scalar: TypeAlias = int | float
HyperparameterValue: TypeAlias = bool | int | float | str

_NOT_NUMBERS = "OSUmMc"  # NumPy kinds: object, bytes, str, timedelta, datetime, complex


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of the finite values between neighbouring edges, with their moments.

    Attributes:
        counts: how many values lie in each bin, ``[bins]``.
        edges: the bins' limits, ``[bins + 1]``.
        minimum: the smallest value.
        maximum: the largest value.
        total: the sum of the values.
        squares: the sum of their squares.
    """

    counts: np.ndarray[Any, Any]
    edges: np.ndarray[Any, Any]
    minimum: float
    maximum: float
    total: float
    squares: float

    def sample(self, most: int = 4096) -> np.ndarray[Any, Any]:
        """About so many values distributed like this, for loggers that count themselves."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        share = min(1.0, most / max(self.counts.sum(), 1))
        return np.repeat(middles, np.ceil(self.counts * share).astype(np.int64))


def as_array(value: object) -> np.ndarray[Any, Any]:
    """A NumPy array of any array-like; device arrays are fetched openly, for transfer guards."""
    return np.asarray(jax.device_get(value) if isinstance(value, jax.Array) else value)


def scalar(value: object) -> Scalar | None:
    """The Python number that a value is, or None where it is no number.

    Python and NumPy numbers and arrays of one element are numbers; NaN and infinities too.
    """
    if isinstance(value, int):
        return int(value)  # also turns a bool into 0 or 1
    if isinstance(value, float):
        return float(value)  # np.float64 is a float whose repr is not a number
    if not hasattr(value, "__array__"):
        return None
    array = as_array(value)
    if array.size != 1 or array.dtype.kind in _NOT_NUMBERS:
        return None
    item = array.reshape(-1)[0]
    return int(item) if array.dtype.kind in "biu" else float(item)


def scalars(metrics: Mapping[str, Any]) -> dict[str, Scalar]:
    """The metrics that are numbers, under their own names; arrays and text are left out."""
    numbers = ((str(name), scalar(value)) for name, value in metrics.items())
    return {name: number for name, number in numbers if number is not None}


def flatten(params: Mapping[str, Any]) -> dict[str, HyperparameterValue]:
    """Nested hyperparameters as one level of names joined by ``/``.

    Values that are no bool, int, float or str become text; functions and types their name.

    Example:
        >>> flatten({"lr": 0.1, "model": {"act_fn": max, "sizes": (3, 3)}})
        {'lr': 0.1, 'model/act_fn': 'max', 'model/sizes': '(3, 3)'}
    """
    return dict(_flat(_fields(params), ""))


def _flat(params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, HyperparameterValue]]:
    for name, value in params.items():
        if inner := _fields(value):
            yield from _flat(inner, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", loggable(value)


def _fields(value: object) -> dict[str, Any]:
    """The parts of a mapping or a dataclass by name; empty for anything else."""
    if isinstance(value, Mapping) or _is_like_mapping(value):
        items: Any = cast("Any", value).items()
        return {str(name): part for name, part in items}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {}


def _is_like_mapping(value: object) -> bool:
    """Whether it is a mapping in all but name, as the ConfigDict of ml_collections is."""
    methods = (getattr(type(value), name, None) for name in ("keys", "items", "__getitem__"))
    is_array = hasattr(value, "dtype")
    return not isinstance(value, type) and not is_array and all(map(callable, methods))


def loggable(value: object) -> HyperparameterValue:
    """A hyperparameter as bool, int, float or str, whichever says it best."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "__array__") and np.size(as_array(value)) > 16:
        return describe_leaf(value)
    number = scalar(value)
    if number is not None:
        return number
    if callable(value):  # without the address that its repr would have
        return str(getattr(value, "__name__", type(value).__name__))
    return str(value)


def histogram(values: object, bins: int = 64) -> Histogram | None:
    """The histogram of an array of any shape.

    Args:
        values: numbers of any shape; NaN and infinities are left out. A histogram stays as it is.
        bins: the number of bins, of equal width, from the smallest to the largest value.

    Returns:
        The histogram, or None where no finite value is left.
    """
    if isinstance(values, Histogram):
        return values
    numbers = as_array(values).astype(np.float64).reshape(-1)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return None
    counts, edges = np.histogram(numbers, bins=bins)
    low, high = float(numbers.min()), float(numbers.max())
    with np.errstate(over="ignore"):
        return Histogram(
            counts, edges, low, high, float(numbers.sum()), float(np.square(numbers).sum())
        )


def is_finite(value: HyperparameterValue) -> bool:
    """Whether a value is anything but NaN or infinite."""
    return not isinstance(value, float) or math.isfinite(value)
