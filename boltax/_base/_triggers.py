"""Triggers: they say when something is due. Pure; the time and the counters are handed in."""

import math
from dataclasses import dataclass

from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Every:
    """Due every so many steps, minutes or epochs; any one of them is enough.

    Attributes:
        steps: due when the number of completed steps is a multiple of this.
        minutes: due when so much time has passed since the last time.
        epochs: due at the end of an epoch whose number is a multiple of this.

    Example:
        >>> often = Every(steps=100, minutes=5)
        >>> often.is_due(step=200, seconds=10.0), often.is_due(step=201, seconds=10.0)
        (True, False)
        >>> often.is_due(step=201, seconds=301.0)
        True
    """

    steps: int | None = None
    minutes: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("epochs", self.epochs)):
            if value is not None and not is_whole(value, 1):
                raise _wrong(f"{name}={value!r}", "a whole number of at least 1")
        if self.minutes is not None and not _is_duration(self.minutes):
            raise _wrong(f"minutes={self.minutes!r}", "a positive number of minutes")

    def is_due(self, *, step: int, seconds: float, ended_epoch: int | None = None) -> bool:
        """Whether it is time.

        Args:
            step: completed steps.
            seconds: time since it was last done.
            ended_epoch: the number of the epoch that ends at this moment, or None.
        """
        return (
            (self.steps is not None and ended_epoch is None and step % self.steps == 0)
            or self.is_time(seconds)
            or (
                self.epochs is not None
                and ended_epoch is not None
                and ended_epoch % self.epochs == 0
            )
        )

    def is_time(self, seconds: float) -> bool:
        """Whether it is time by the clock alone.

        Args:
            seconds: time since it was last done.
        """
        return self.minutes is not None and seconds >= 60 * self.minutes


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf


def _wrong(received: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"Received Every({received}); expected {expected}, or None for never. Write "
        "Every(steps=1000)."
    )
