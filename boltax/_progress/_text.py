"""Numbers of a bar as words: durations, rates, counts, metrics. Nothing here prints."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from boltax._progress._tracked import Tracked

IRREGULAR = {"building": "built", "reading": "read", "setting": "set", "writing": "wrote"}


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:01:02``."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def short_duration(seconds: float) -> str:
    """A duration whose hours are left out when there are none: ``01:02``."""
    return duration(seconds).removeprefix("0:")


def took(seconds: float) -> str:
    """How long something took: ``3.2 s``, or ``0:01:02`` from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def past(text: str) -> str:
    """Turns what is going on into what was done: ``compiling the step``, ``compiled the step``."""
    verb, space, rest = text.partition(" ")
    if verb in IRREGULAR:
        return IRREGULAR[verb] + space + rest
    return f"{verb.removesuffix('ing')}ed{space}{rest}" if verb.endswith("ing") else f"{text}: done"


def number(value: float) -> str:
    """A number in about three digits, of a width that seldom changes."""
    if isinstance(value, bool | int):
        return f"{value:,}" if isinstance(value, int) else str(value)
    size = abs(value)
    if not np.isfinite(value):
        return str(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return f"{value:.2e}"
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}"


def metrics_text(metrics: Mapping[str, Any], room: int | None = None) -> str:
    """Metrics as ``loss 0.312  acc 0.910``; a phase that all share is left out, and so are arrays.

    The training loss comes first, and the others in the order in which they are given.

    Args:
        metrics: name to value.
        room: characters at most; the metrics that do not fit as a whole are left out.

    Example:
        >>> metrics_text({"train/loss": 0.3123, "train/acc": 0.91})
        'loss 0.312  acc 0.910'
        >>> metrics_text({"train/loss": 0.3123, "val/loss": 1 / 3}, room=20)
        'train/loss 0.312 …'
    """
    parts = _parts(metrics)
    text = "  ".join(parts)
    while room is not None and len(text) > room and parts:
        parts.pop()
        text = "  ".join(parts) + " …"
    return text if parts else ""


def room_for(metrics: Mapping[str, Any], number: int) -> int:
    """The characters that the first metrics need, with the sign that there are more."""
    parts = _parts(metrics)
    return len("  ".join(parts[:number])) + 2 * (len(parts) > number)


def _parts(metrics: Mapping[str, Any]) -> list[str]:
    names = sorted(metrics, key=lambda name: name not in ("loss", "train/loss"))
    shown = {name: text for name in names if (text := _value(metrics[name])) is not None}
    phases = {name.partition("/")[0] for name in shown if "/" in name}
    has_one_phase = len(phases) == 1 and all("/" in name for name in shown)
    cut = len(phases.pop()) + 1 if has_one_phase else 0
    return [f"{name[cut:]} {text}" for name, text in shown.items()]


def count_text(bar: Tracked[Any]) -> str:
    """``  3/30``, or ``3`` when the total is unknown."""
    if bar.total is None:
        return f"{bar.count}"
    return f"{bar.count:>{len(str(bar.total))}}/{bar.total}"


def rate_text(bar: Tracked[Any], *, is_wide: bool = True) -> str:
    """Examples per second where they are counted, else items per second, else nothing."""
    items, examples = bar.pace.rates() or (0.0, 0.0)
    if examples > 0:
        digits = 0 if examples >= 100 else 1
        return f"{examples:,.{digits}f} {'examples' if is_wide else 'ex'}/s"
    if items <= 0:
        return ""
    return f"{items:,.1f} {bar.unit}/s" if items >= 1 else f"{1 / items:,.1f} s/{bar.unit}"


def _value(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float):
        value = _item(value)
    return None if value is None else number(value)


def _item(value: Any) -> float | None:
    try:
        array = np.asarray(jax.device_get(value))
        return array.item() if array.size == 1 and array.dtype.kind in "biufV" else None
    except Exception:  # noqa: BLE001 - a display never ends a run: the array may be donated by now
        return None
