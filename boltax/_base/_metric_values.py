"""What a metric of a hook or a callback may be: a number, or an array of numbers."""

import reprlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from boltax.errors import MetricsError


def check_metric_values(metrics: Mapping[str, Any], source: str) -> None:
    """Refuses values that are no metrics, before any of them is recorded.

    Args:
        metrics: values by name.
        source: who gives them, for the message: ``"Log(metrics=...)"``.

    Raises:
        MetricsError: for text, None, dicts and other objects; names the metric.

    Example:
        >>> check_metric_values({"acc": 0.5, "per_class": [0.5, 1.0]}, "Log(metrics=...)")
        >>> check_metric_values({"note": "good"}, "Log(metrics=...)")
        Traceback (most recent call last):
        boltax.errors.MetricsError: Received the metric 'note' = 'good' of type str from ...
    """
    for name, value in metrics.items():
        if not _is_number_or_array(value):
            raise MetricsError(
                f"Received the metric {name!r} = {reprlib.repr(value)} of type "
                f"{type(value).__name__} from {source}; expected a number or an array of numbers. "
                f"{_advice(name, value)}"
            )


def _is_number_or_array(value: Any) -> bool:
    if isinstance(value, bool | int | float):
        return not isinstance(value, int) or value.bit_length() < 1024  # it becomes a float
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype):  # a list, or an array of another library
        if not isinstance(value, list | tuple) and not hasattr(value, "__array__"):
            return False
        try:
            dtype = np.asarray(value).dtype
        except (TypeError, ValueError, RuntimeError):  # of several lengths, or on another device
            return False
    return bool(
        jnp.issubdtype(dtype, np.bool_)
        or jnp.issubdtype(dtype, np.integer)
        or jnp.issubdtype(dtype, np.floating)
    )


def _advice(name: str, value: Any) -> str:
    if value is None:
        return "Leave it out where there is no value."
    if isinstance(value, str):
        return f"Write boltax.callbacks.Log(text={{{name!r}: ...}}) for text."
    if isinstance(value, Mapping):
        first = f"{name}/{next(iter(value), 'a')}"
        return f"Write one metric for each of its numbers, such as {first!r}."
    return "Write float(x), or an array of floats."
