"""Progress as strict JSON: whatever JSON can say, and NaN and infinities, all exactly.

    {"best": {"val/loss": {"__float__": "nan"}}, "epoch": 3}

Finite floats are written so that they come back bit for bit. A key that begins with two
underscores is escaped, so that a dict of the user's is never taken for a float.
"""

import math
from typing import Any

from boltax.checkpoint._files import MAX_JSON_DEPTH
from boltax.checkpoint._plain import short
from boltax.errors import CheckpointError

_FLOAT = "__float__"
_ESCAPE = "__key__"
_MOST_BITS = 12_000  # Python reads no more than 4300 digits
_MOST_LEVELS = MAX_JSON_DEPTH - 5  # there is a little around it in the file


def encode_progress(value: Any, place: str = "progress", depth: int = 0) -> Any:
    """A value as strict JSON.

    Args:
        value: None, bools, numbers, strings, and lists and dicts of these.
        place: its name, for messages.
        depth: how many containers there are around it.

    Raises:
        CheckpointError: for any other value, naming its place.

    Example:
        >>> encode_progress({"best": [float("inf"), 0.1]})
        {'best': [{'__float__': 'inf'}, 0.1]}
    """
    if depth > _MOST_LEVELS:
        raise _refused(place[:80], "containers in containers", f"at most {_MOST_LEVELS} levels")
    if value is None or type(value) in (bool, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: str(float(value))}
    if type(value) is int:
        if value.bit_length() < _MOST_BITS:
            return value
        raise _refused(place, f"a number of {value.bit_length():,} bits", f"less than {_MOST_BITS}")
    if isinstance(value, list):
        return [encode_progress(v, f"{place}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {
            _escaped(key): encode_progress(v, f"{place}[{key!r}]", depth + 1)
            for key, v in value.items()
        }
    raise _refused(place, short(value), "None, bools, numbers, strings, lists, dicts of strings")


def decode_progress(stored: Any) -> Any:
    """The value that `encode_progress` made JSON of.

    Raises:
        CheckpointError: when it is not as that writes it.
    """
    if isinstance(stored, list):
        return [decode_progress(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    if _FLOAT in stored:
        if len(stored) == 1 and stored[_FLOAT] in ("nan", "inf", "-inf"):
            return float(stored[_FLOAT])
        raise CheckpointError(
            f"Received {short(stored)} in progress.json; expected one of the words nan, inf and "
            "-inf. The file is damaged, or was written by another program: restore it from a copy."
        )
    return {key.removeprefix(_ESCAPE): decode_progress(item) for key, item in stored.items()}


def _escaped(key: str) -> str:
    return _ESCAPE + key if key.startswith("__") else key


def _refused(place: str, received: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"Received {received} as {place} of what is to be saved; expected {expected}. Convert it "
        "first, an array with .tolist()."
    )
