"""The fields of a run's progress: what each may be, checked before anything is made of them.

A checkpoint may come from anybody. Numbers are bounded by what a run can reach, so that none
overflows or makes a loop of years; a field that is something else is an error which names it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from boltax.checkpoint._plain import short
from boltax.checkpoint._resume_checkpoints import Resume
from boltax.errors import CheckpointError

_MOST_STEPS = 2**53
_MOST_EPOCHS = 2**31
_MOST_SECONDS = 1e11
_NOT_IN_ALL = ("callbacks", "extra", "processes")  # populations have none, or had none
_NOT_IN_OLDER = ("validated",)
_STAGES = ("train", "midway", "validate", "complete")

Check = tuple[Callable[[Any], bool], str]


def check_progress(found: Resume) -> None:
    """Refuses a resume checkpoint of a run whose progress boltax cannot have written.

    Raises:
        CheckpointError: naming the file and the field.
    """
    data: Any = found.progress.get("data")
    if not isinstance(data, dict):
        raise _wrong(found, "data", short(data), "the place in the data")
    for prefix, fields, values in (("", _FIELDS, found.progress), ("data.", _DATA, data)):
        for name, (is_good, expected) in fields.items():
            is_optional = name == "processes" or "members" in found.progress
            if name not in values and name in _NOT_IN_ALL and is_optional:
                continue
            if name not in values and name in _NOT_IN_OLDER:
                continue
            if name not in values or not is_good(values[name]):
                received = short(values[name]) if name in values else "nothing"
                raise _wrong(found, f"{prefix}{name}", received, expected)
    if found.progress["step"] != found.step:
        raise _wrong(found, "step", found.progress["step"], f"{found.step}, as the folder is named")
    for name in ("interval", "epoch"):
        arrays = found.arrays.get(name)
        parts = arrays if isinstance(arrays, list | tuple) else [arrays]  # of each member
        if not all(map(_is_accumulated, parts)) and not _is_accumulated(arrays):
            received = short(arrays)
            raise _wrong(found, f"arrays of {name}", received, "a list of arrays, or nothing")


def _is_whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value < _MOST_SECONDS


def _is_metrics(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_steps(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole(0, _MOST_STEPS), value))


def _is_accumulated(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return value is None or (is_list and all(isinstance(a, np.ndarray | np.generic) for a in value))


def _or_none(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_good(value)


_A_STEP = f"a whole number from 0 to {_MOST_STEPS}"
_METRICS: Check = (_is_metrics, "metrics by name")
_SECONDS: Check = (_is_seconds, "a number of seconds from 0")
_FIELDS: dict[str, Check] = {
    "step": (_is_whole(0, _MOST_STEPS), _A_STEP),
    "epoch": (_is_whole(0, _MOST_EPOCHS), f"a whole number from 0 to {_MOST_EPOCHS}"),
    "stage": (lambda value: value in _STAGES, f"one of {', '.join(_STAGES)}"),
    "total_steps": (_or_none(_is_whole(0, _MOST_STEPS)), f"{_A_STEP}, or null"),
    "stop_reason": (lambda value: value is None or isinstance(value, str), "a text, or null"),
    "validated": (_or_none(_is_whole(0, _MOST_STEPS)), f"{_A_STEP}, or null"),
    "seconds": _SECONDS,
    "seconds_of_epoch": _SECONDS,
    "best": (_or_none(_is_metrics), "metrics by name, or null"),
    "best_steps": (_is_steps, "a list of steps"),
    "record": _METRICS,
    "row": _METRICS,
    "logged": _METRICS,
    "history": (
        lambda value: isinstance(value, list) and all(map(_is_metrics, value)),
        "a list of metrics by name",
    ),
    "callbacks": (lambda value: isinstance(value, list), "a list"),
    "extra": (_is_metrics, "values by name"),
    "config": (_is_metrics, "values by name"),
    "devices": (_is_whole(1, _MOST_EPOCHS), "a whole number from 1"),
    "time": (lambda value: isinstance(value, str), "a text"),
    "data": (_is_metrics, "values by name"),
}
_DATA: dict[str, Check] = {
    "cursor": (_or_none(_is_metrics), "values by name, or null"),
    "fingerprint": (_is_metrics, "values by name"),
    "processes": (_is_whole(1, _MOST_EPOCHS), "a whole number from 1"),
}


def _wrong(found: Resume, field: str, received: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"Received {field!r} = {received} in {found.folder / 'progress.json'}; expected "
        f"{expected}. The file is damaged, or was written by another program: restore it from a "
        "copy, or resume from another checkpoint, "
        f"train_model(..., resume='{found.folder.parent}/<step>')."
    )
