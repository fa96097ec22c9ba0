"""What callbacks keep between two calls, as JSON for a resume checkpoint, and back."""

import logging
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from boltax.callbacks._base import Callback
from boltax.errors import CheckpointError, ConfigurationError, noting

_log = logging.getLogger("boltax")


def callback_states(callbacks: Iterable[Callback]) -> list[dict[str, Any]]:
    """The class and the state of each callback, as new plain JSON.

    Raises:
        ConfigurationError: when a state holds something else; names the callback and the value.
    """
    states: list[dict[str, Any]] = []
    for callback in callbacks:
        name = type(callback).__name__
        with noting(f"callback {name}.state_dict"):
            state: object = callback.state_dict()
        if not isinstance(state, Mapping):
            raise _not_json(f"{name}.state_dict()", state)
        held = dict(cast("Mapping[Any, Any]", state))
        states.append({"callback": name, "state": _as_json(held, f"{name}.state_dict()")})
    return states


def load_callback_states(callbacks: Iterable[Callback], states: list[dict[str, Any]]) -> None:
    """Gives callbacks their states back, matched by class, in their order.

    A callback that was not there when the states were saved starts anew, and a state whose callback
    is gone is left; both are said in the log.

    Raises:
        CheckpointError: when the states are not as `callback_states` made them; no callback has
            changed then.
    """
    left = list(states)
    for entry in left:
        _check(entry)
    for callback in callbacks:
        name = type(callback).__name__
        mine = next((entry for entry in left if entry["callback"] == name), None)
        if mine is None:
            _log.warning("The callback %s was not part of the saved run: it starts anew.", name)
            continue
        left = [entry for entry in left if entry is not mine]
        with noting(f"callback {name}.load_state_dict"):
            callback.load_state_dict(mine["state"])
    for entry in left:
        _log.warning("The saved run had a callback %s, which is not given now.", entry["callback"])


def _as_json(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):  # of NumPy too
        return float(value)
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return [_as_json(item, f"{where}[{index}]") for index, item in enumerate(items)]
    if isinstance(value, dict):
        parts = cast("dict[Any, Any]", value)
        if all(type(key) is str for key in parts):
            return {key: _as_json(item, f"{where}[{key!r}]") for key, item in parts.items()}
    raise _not_json(where, value)


def _not_json(where: str, value: object) -> ConfigurationError:
    return ConfigurationError(
        f"Received {where} = {reprlib.repr(value)} of type {type(value).__name__}; expected plain "
        "JSON: None, bool, int, float, str, and lists and dicts (by names) of these. Write "
        "float(x), x.tolist() or str(x)."
    )


def _check(entry: Any) -> None:
    match entry:
        case {"callback": str(), "state": dict()}:
            return
        case _:
            raise CheckpointError(
                f"Received {reprlib.repr(entry)} as what a callback kept; expected its class and "
                "its state, as boltax writes them. Resume from an older checkpoint."
            )
