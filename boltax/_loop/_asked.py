"""What a call of `train_model` asks for: how long to train, when to validate; checked values."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from boltax._base._triggers import Every
from boltax._base._whole import is_whole
from boltax._build._arguments import whole
from boltax.callbacks._timer import parse_duration
from boltax.errors import ConfigurationError


@dataclass(frozen=True)
class Asked:
    """The arguments of a call that are about its length and its validations.

    Attributes:
        num_epochs: passes over the data; None where it is not given.
        max_steps: steps after which to stop.
        max_seconds: time after which to stop.
        min_epochs: epochs before which no callback may end the run.
        min_steps: steps, likewise.
        schedule_steps: steps over which the schedule is laid out; None for those in all.
        validate_every: when to validate; None for the trainer's `check_val_every_n_epoch`.
        validate_at_start: whether to validate before the first step.
        new_data: whether a resume may be with other training data.
    """

    num_epochs: int | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    min_epochs: int = 0
    min_steps: int = 0
    schedule_steps: int | None = None
    validate_every: Every | None = None
    validate_at_start: bool = False
    new_data: bool = False


def asked(
    *,
    num_epochs: Any = None,
    max_steps: Any = None,
    max_time: str | float | timedelta | None = None,
    min_epochs: Any = None,
    min_steps: Any = None,
    schedule_steps: Any = None,
    validate_every: Any = None,
    validate_at_start: bool = False,
    new_data: bool = False,
) -> Asked:
    """The arguments of a call, each checked, and against each other.

    Raises:
        ConfigurationError: for a value that cannot be, or two that contradict each other.
    """
    numbers = {
        "num_epochs": num_epochs,
        "max_steps": max_steps,
        "min_epochs": min_epochs,
        "min_steps": min_steps,
        "schedule_steps": schedule_steps,
    }
    given = {name: whole(name, value) for name, value in numbers.items() if value is not None}
    for least, most in (("min_epochs", "num_epochs"), ("min_steps", "max_steps")):
        if given.get(least, 0) > given.get(most, float("inf")):
            raise ConfigurationError(
                f"Received {least}={given[least]} and {most}={given[most]}; expected a run that "
                f"may be as long as it has to be. Write {most}={given[least]}, or a smaller "
                f"{least}."
            )
    return Asked(
        **given,
        max_seconds=None if max_time is None else parse_duration(max_time),
        validate_every=None if validate_every is None else _trigger(validate_every),
        validate_at_start=bool(validate_at_start),
        new_data=bool(new_data),
    )


def validation_trigger(wanted: Asked, every_n_epoch: int, val_loader: Any) -> Every:
    """When a run validates: as its call asks for, or as its trainer was made.

    Args:
        wanted: what the call asks for.
        every_n_epoch: the trainer's `check_val_every_n_epoch`.
        val_loader: the validation data.

    Raises:
        ConfigurationError: for two cadences at once, or one without data.
    """
    every = wanted.validate_every
    if every is not None and every_n_epoch != 1:
        raise ConfigurationError(
            f"Received validate_every={_written(every)} for a trainer with "
            f"check_val_every_n_epoch={every_n_epoch}; expected one of them, since they say when "
            "to validate in two ways. Leave check_val_every_n_epoch out, or write "
            f"validate_every=Every(epochs={every_n_epoch})."
        )
    if val_loader is None and (every is not None or wanted.validate_at_start):
        name = "validate_at_start=True" if every is None else f"validate_every={_written(every)}"
        raise ConfigurationError(
            f"Received {name} but no val_loader; expected data to validate on. Write "
            "train_model(train_loader, val_loader, ...)."
        )
    return every or Every(epochs=every_n_epoch)


def _trigger(value: Any) -> Every:
    if isinstance(value, Every):
        if value != Every():
            return value
    elif is_whole(value) and int(value) >= 1:
        return Every(steps=int(value))
    raise ConfigurationError(
        f"Received validate_every={value!r}; expected a number of steps of at least 1, or an "
        "Every with steps, minutes or epochs. Write validate_every=1000, or "
        "validate_every=boltax.Every(minutes=30)."
    )


def _written(every: Every) -> str:
    parts = ("steps", "minutes", "epochs")
    given = {name: getattr(every, name) for name in parts if getattr(every, name) is not None}
    if list(given) == ["steps"]:
        return str(every.steps)
    return f"Every({', '.join(f'{name}={value}' for name, value in given.items())})"
