"""Reads the dict `optimizer_hparams`: checks every key, builds nothing, changes nothing."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boltax.errors import OptimizerError, unknown_name
from boltax.optim._by_path import Freeze, check_freeze, check_lr_scale
from boltax.optim._registry import RENAMED, Entry, decay_error, lookup
from boltax.optim._regularization import DecayMask, mask_function
from boltax.optim._schedules import ScheduleSpec
from boltax.optim._spikes import check_policy

KEYS = frozenset(
    {
        "decay_mask",
        "freeze",
        "gradient_clip",
        "l2_regularization",
        "lr",
        "lr_scale",
        "on_spike",
        "optimizer",
        "schedule",
        "warmup",
        "weight_decay",
    }
)
CLIPS = ("adaptive", "norm", "value")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`optimizer_hparams` as checked values.

    Attributes:
        entry: the optimizer.
        arguments: its own arguments.
        lr: the learning rate; None when not given.
        schedule: as the user wrote it, or the optimizer's default.
        warmup: steps, or a fraction of the run below 1.
        clip: how gradients are clipped, one of `CLIPS`, and the limit; None when they are not.
        weight_decay: strength of decoupled decay; None when not given.
        decay_mask: which parameters decay.
        l2_regularization: strength of the penalty in the loss; 0 for none.
        lr_scale: factors of the learning rate by pattern.
        freeze: what is not trained; None for nothing.
        on_spike: what is done where the loss jumps; None for no look.
    """

    entry: Entry
    arguments: Mapping[str, Any]
    lr: float | None
    schedule: ScheduleSpec
    warmup: int | float
    clip: tuple[str, float] | None
    weight_decay: float | None
    decay_mask: DecayMask
    l2_regularization: float
    lr_scale: Mapping[str, float]
    freeze: Freeze | None
    on_spike: str | None = None


def read(hparams: Mapping[str, Any]) -> Settings:
    """The settings that the dict describes.

    Raises:
        UnknownNameError: for an optimizer or a key that does not exist.
        OptimizerError: for values that cannot be used, or that contradict each other.
    """
    entry = lookup(hparams.get("optimizer", "adamw"))
    mask = hparams.get("decay_mask")
    settings = Settings(
        entry=entry,
        arguments=_own_arguments(entry, hparams),
        lr=_optional_number(hparams, "lr"),
        schedule=hparams.get("schedule", entry.schedule),
        warmup=_warmup(hparams.get("warmup", 0)),
        clip=_clip(hparams.get("gradient_clip", entry.clip)),
        weight_decay=_optional_number(hparams, "weight_decay"),
        decay_mask="all" if mask is None else mask,
        l2_regularization=_optional_number(hparams, "l2_regularization") or 0.0,
        lr_scale=_lr_scale(hparams.get("lr_scale")),
        freeze=hparams.get("freeze"),
        on_spike=check_policy(hparams.get("on_spike")),
    )
    _check_learning_rate(settings)
    _check_by_path(settings)
    _check_regularization(settings)
    if mask is not None:
        _check_mask(settings)
    return settings


def _own_arguments(entry: Entry, hparams: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in hparams.items() if key not in KEYS}
    for key, value in own.items():
        if key in RENAMED and key not in entry.arguments:
            raise OptimizerError(
                f"Received {key}={value!r} for optimizer {entry.name!r}; expected the key "
                f"{RENAMED[key]!r}, which means the same with every optimizer. Write "
                f"{RENAMED[key]!r} instead of {key!r}."
            )
        if key not in entry.arguments:
            raise unknown_name(f"argument of optimizer {entry.name!r}", key, entry.arguments | KEYS)
    missing = sorted(entry.required - own.keys())
    if missing:
        raise OptimizerError(
            f"Received optimizer {entry.name!r} without {', '.join(missing)}; expected every "
            "argument that has no default. Write "
            f"{{'optimizer': {entry.name!r}, {missing[0]!r}: ...}}."
        )
    return {**entry.presets, **own}


def _check_learning_rate(settings: Settings) -> None:
    entry, schedule = settings.entry, settings.schedule
    has_schedule = settings.warmup != 0 or schedule not in ("constant", None)
    given = f"lr={settings.lr}, schedule={schedule!r}, warmup={settings.warmup}"
    if not entry.has_lr and (settings.lr is not None or has_schedule):
        raise OptimizerError(
            f"Received {given} for optimizer {entry.name!r}; expected none of them, because it has "
            "no learning rate. Leave them out; its own arguments are "
            f"{', '.join(sorted(entry.arguments))}."
        )
    if entry.lr_is_fixed and has_schedule:
        raise OptimizerError(
            f"Received {given} for optimizer {entry.name!r}; expected a constant learning rate, "
            "because it is read only once, as the first step size. Leave schedule and warmup out."
        )
    if entry.default_lr is None and settings.lr is None and has_schedule and not callable(schedule):
        raise OptimizerError(
            f"Received {given} for optimizer {entry.name!r}; expected a schedule only beside lr, "
            "because without it the line search alone finds the step size. Leave schedule and "
            "warmup out, or write lr too."
        )


def _check_by_path(settings: Settings) -> None:
    check_lr_scale(settings.lr_scale)
    if settings.freeze is not None:
        check_freeze(settings.freeze)
    entry = settings.entry
    why = entry.lr_is_whole or ("" if entry.has_lr else "it has no learning rate")
    if settings.lr_scale and why:
        raise OptimizerError(
            f"Received lr_scale={dict(settings.lr_scale)!r} for optimizer {entry.name!r}; expected "
            f"one learning rate for all parameters, because {why}. Leave lr_scale "
            "out, or choose an optimizer such as 'adamw'."
        )


def _check_regularization(settings: Settings) -> None:
    decay, l2 = settings.weight_decay, settings.l2_regularization
    if decay and l2:
        raise OptimizerError(
            f"Received weight_decay={decay:g} and l2_regularization={l2:g}; expected one of them, "
            "because together they would shrink the parameters twice. Write weight_decay for "
            "decoupled decay, or l2_regularization for a penalty in the loss."
        )
    if decay and not settings.entry.has_decay:
        raise decay_error(settings.entry, decay)


def _check_mask(settings: Settings) -> None:
    entry, mask = settings.entry, settings.decay_mask
    mask_function(mask)
    if settings.weight_decay is None:
        raise OptimizerError(
            f"Received decay_mask={mask!r} without weight_decay; expected both, because the mask "
            "chooses which parameters decay. Write weight_decay=0.01 beside it, or leave "
            "decay_mask out."
        )
    if not entry.takes_mask and mask != "all":
        raise OptimizerError(
            f"Received decay_mask={mask!r} for optimizer {entry.name!r}; expected none, because "
            "its decay acts on all parameters. Leave decay_mask out, or choose an optimizer such "
            "as 'adamw'."
        )


def _warmup(value: Any) -> int | float:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and isinstance(value, numbers.Integral) and int(value) >= 0:
        return int(value)
    if is_number and 0.0 <= float(value) < 1.0:
        return float(value)
    raise OptimizerError(
        f"Received warmup={value!r} ({type(value).__name__}); expected a whole number of steps, or "
        "a fraction of the run between 0 and 1. Write for instance warmup=100 or warmup=0.05."
    )


def _clip(value: Any) -> tuple[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return "norm", _number("gradient_clip", value, is_positive=True)
    for kind in value:
        if kind not in CLIPS:
            raise unknown_name("kind of gradient_clip", kind, CLIPS)
    if len(value) != 1:
        raise OptimizerError(
            f"Received gradient_clip={dict(value)!r}; expected exactly one kind of clipping. "
            'Write for instance gradient_clip={"norm": 1.0}.'
        )
    kind, limit = next(iter(value.items()))
    return kind, _number(f"gradient_clip[{kind!r}]", limit, is_positive=True)


def _lr_scale(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if isinstance(value, Mapping) and value:
        return {key: _number(f"lr_scale[{key!r}]", factor) for key, factor in value.items()}
    raise OptimizerError(
        f"Received lr_scale={value!r} ({type(value).__name__}); expected a dict from regular "
        'expressions over paths to factors. Write for instance lr_scale={"encoder/": 0.1}.'
    )


def _optional_number(hparams: Mapping[str, Any], key: str) -> float | None:
    return None if hparams.get(key) is None else _number(key, hparams[key])


def _number(key: str, value: Any, *, is_positive: bool = False) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        number = float(value)
        if number > 0 or (number == 0 and not is_positive):
            return number
    least = "above" if is_positive else "of at least"
    raise OptimizerError(
        f"Received {key}={value!r} ({type(value).__name__}); expected a finite number {least} 0, "
        f"or None. Write for instance {key}=0.1."
    )
