"""Keeps a run within its time, and logs how long epochs take."""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from numbers import Real
from typing import Any, TypeAlias, cast

from boltax.callbacks._base import Callback, Log, Request, Stop, View
from boltax.errors import ConfigurationError, unknown_name

Duration: TypeAlias = str | timedelta | float | Mapping[str, float]
"""A time span: ``"hh:mm:ss"``, ``"dd:hh:mm:ss"``, a timedelta, seconds, or ``{"hours": 2}``."""

KEY = "time/epoch"
SECONDS = "time/train"
"""The key of the history's row under which the loop has the seconds of an epoch."""
UNITS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+):(\d+(?:\.\d+)?)")


class Timer(Callback):
    """Stops the run when its time is used up, and logs the seconds of each epoch as ``time/epoch``.

    The clock is looked at after each record and each epoch, so that no step is interrupted. The
    time of an epoch is that of its training, without the validation.

    Args:
        duration: how long the run may take: ``"hh:mm:ss"`` or ``"dd:hh:mm:ss"``, a
            `datetime.timedelta`, seconds, or a dict such as ``{"hours": 2, "minutes": 30}``; None
            for as long as it takes.

    Raises:
        ConfigurationError: when the duration cannot be read or is not positive.

    Example:
        >>> Timer("01:30:00").seconds
        5400.0
        >>> Timer({"days": 1, "hours": 12}).seconds
        129600.0
    """

    def __init__(self, duration: Duration | None = None) -> None:
        self.seconds = None if duration is None else parse_duration(duration)

    def on_log(self, view: View) -> Stop | None:
        """Stops within an epoch."""
        return self._stop(view)

    def on_training_epoch_end(self, view: View) -> list[Request]:
        """Logs the time of the epoch, and stops if it was the last for which there was time."""
        row = view.history[-1] if view.history else {}
        log = [Log({KEY: row[SECONDS]})] if SECONDS in row else []
        stop = self._stop(view)
        return [*log, *([] if stop is None else [stop])]

    def on_validation_epoch_end(self, view: View) -> Stop | None:
        """Stops after a validation that took the rest of the time."""
        return self._stop(view)

    def _stop(self, view: View) -> Stop | None:
        if self.seconds is None or view.elapsed < self.seconds:
            return None
        return Stop(
            f"the time of {timedelta(seconds=self.seconds)} is used up, after "
            f"{timedelta(seconds=round(view.elapsed))}"
        )


def parse_duration(duration: Duration) -> float:
    """The seconds of a time span, however it is written; see `Timer`.

    Raises:
        ConfigurationError: when it cannot be read or is not positive.

    Example:
        >>> parse_duration("00:10:00")
        600.0
    """
    seconds = _seconds(duration)
    if seconds is None or not 0 < seconds < math.inf:
        raise ConfigurationError(
            f"Received the duration {duration!r} of type {type(duration).__name__}; expected a "
            "positive time span as 'hh:mm:ss' or 'dd:hh:mm:ss', a timedelta, seconds, or a dict. "
            "Write '01:30:00' for an hour and a half, or {'hours': 1.5}."
        )
    return seconds


def _seconds(duration: object) -> float | None:
    match duration:
        case bool():
            return None
        case Real():
            return float(duration)
        case timedelta():
            return duration.total_seconds()
        case str():
            return _seconds_of_clock(duration)
        case Mapping():
            return _seconds_of_parts(cast("Mapping[str, Any]", duration))
        case _:
            return None


def _seconds_of_clock(text: str) -> float | None:
    match = CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _seconds_of_parts(parts: Mapping[str, Any]) -> float | None:
    for unit in parts:
        if unit not in UNITS:
            raise unknown_name("unit of time", unit, UNITS)
    if not all(isinstance(n, Real) and not isinstance(n, bool) for n in parts.values()):
        return None
    return float(sum(UNITS[unit] * number for unit, number in parts.items()))
