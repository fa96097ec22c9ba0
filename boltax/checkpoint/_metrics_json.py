"""Metrics as strict JSON: numbers exact, NaN and infinities as the words that `float` reads."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from boltax._base._types import ScalarMetrics
from boltax.errors import CheckpointError

_WORDS = ("nan", "inf", "-inf")


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics for a JSON file: numbers, lists for arrays, and ``"nan"``, ``"inf"``, ``"-inf"``.

    Args:
        metrics: name to number, or to an array of any shape.

    Example:
        >>> plain_metrics({"val/loss": float("nan"), "val/per_class": np.array([0.5, 1.0])})
        {'val/loss': 'nan', 'val/per_class': [0.5, 1.0]}
    """
    return {str(name): _as_json(value) for name, value in metrics.items()}


def read_metrics(stored: Mapping[str, Any]) -> ScalarMetrics:
    """The metrics that `plain_metrics` made plain; lists become arrays.

    Raises:
        CheckpointError: for a value that is no metric.
    """
    return {name: _number(name, value) for name, value in stored.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.ndim:
        return [_as_json(item) for item in array]
    number = array.item()
    if isinstance(number, float) and not math.isfinite(number):
        return str(number)
    return number if isinstance(number, bool | int | float) else str(number)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, list):
        try:
            return np.array([_number(name, item) for item in value])
        except ValueError as error:
            raise _no_metric(name, value) from error
    if isinstance(value, dict):
        raise _no_metric(name, value)
    return float(value) if value in _WORDS else value


def _no_metric(name: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"Received the metric {name!r} = {str(value)[:80]} in metrics.json; expected a number or a "
        "regular list of numbers. The file is damaged: restore it from a copy."
    )
