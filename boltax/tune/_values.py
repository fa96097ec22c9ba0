"""What members of a population may differ in, and where each value lives in the training state.

A member is given as ``{"seed": 1, "lr": 3e-3, ...}``. Its numbers belong to the optimizer (values
in its state; of one of several ``"generator.lr"``), to the loss as L2 penalty, or to the user's
`loss_function` (``model.hparams``).
Whatever else a name means is part of the compiled program: it is named, with the population that
it would need.
"""

import math
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from boltax._build._methods import overrides
from boltax._step._state import is_traced_hyperparameter
from boltax.errors import ConfigurationError, OptimizerError, unknown_name
from boltax.optim._named import changed, flat
from boltax.optim._traced import TracedOptimizer, check_settings, default_value, traceable
from boltax.trainer import TrainerModule

SEED = "seed"
L2 = "l2_regularization"


@dataclass(frozen=True)
class Given:
    """A member as the user gave it.

    Attributes:
        seed: of its parameters and random streams.
        values: its hyperparameters.
    """

    seed: int
    values: Mapping[str, float]


class Varied:
    """The hyperparameters that a population varies, each with its home in the state.

    Attributes:
        optimizer_names: those in the optimizer's state.
        loss_names: those that `loss_function` reads as ``model.hparams[name]``.
        has_l2: whether the loss has an L2 penalty of varied strength.

    Args:
        trainer: whose hyperparameters they are.
        members: the members, checked.

    Raises:
        ConfigurationError: when a member lacks a value for which there is no default.
    """

    def __init__(self, trainer: TrainerModule, members: Sequence[Given]) -> None:
        names = dict.fromkeys(name for member in members for name in member.values)
        self.loss_names = tuple(name for name in names if name in trainer.hparams)
        own = [name for name in names if name not in trainer.hparams]
        self.has_l2 = L2 in own
        self.optimizer_names = tuple(name for name in own if name != L2)
        self.names = tuple(names)
        self._trainer = trainer
        self._defaults = {name: self._default(name) for name in names}
        for number, member in enumerate(members):
            self.complete(member.values, number)
        first = self.complete(members[0].values, 0)
        self._base = first

    def complete(self, values: Mapping[str, float], number: int) -> dict[str, float]:
        """The value of each varied name for a member, with the trainer's own where it gives none.

        Raises:
            ConfigurationError: for a name that is not varied, or one without any value.
        """
        for name in values:
            if name not in self.names:
                raise ConfigurationError(
                    f"Received {name}={values[name]!r} for member {number}, which no member had at "
                    f"the start; expected only {', '.join(self.names) or 'a seed'}, which are "
                    f"values in the compiled program. Write {name} in members from the start."
                )
        complete = {**self._defaults, **values}
        for name, value in complete.items():
            if value is None:
                raise ConfigurationError(
                    f"Received no {name} for member {number}, and the trainer has none; expected a "
                    f"number for each member when one has it. Write {{{name!r}: ..., ...}}."
                )
        return cast("dict[str, float]", complete)

    def optimizer(self, total_steps: int | None) -> TracedOptimizer:
        """The optimizer that all members share."""
        hparams = self._trainer.optimizer_hparams
        if isinstance(hparams, Mapping):
            hparams = self.optimizer_hparams(self._base)
        return TracedOptimizer(hparams, total_steps, self.optimizer_names)

    def optimizer_hparams(self, values: Mapping[str, float]) -> dict[str, Any]:
        """The `optimizer_hparams` of a single run with these values."""
        hparams = cast("Mapping[str, Any]", self._trainer.optimizer_hparams)
        names = (*self.optimizer_names, *((L2,) if self.has_l2 else ()))
        return changed(hparams, {name: values[name] for name in names})

    def arrays(self, values: Mapping[str, float]) -> dict[str, jax.Array]:
        """Values as the compiled functions take them, float32 scalars on the device."""
        return {name: jax.device_put(np.float32(values[name])) for name in self.names}

    def state_hparams(self, values: Mapping[str, jax.Array]) -> dict[str, jax.Array] | None:
        """`TrainState.hparams` with these values; traced. None when there are none."""
        held = {
            name: jax.numpy.asarray(value, jax.numpy.float32)
            for name, value in self._trainer.hparams.items()
            if is_traced_hyperparameter(value)
        }
        held |= {name: values[name] for name in self.loss_names}
        coefficient = self._l2_of_trainer()
        if self.has_l2:
            held[L2] = values[L2]
        elif coefficient:
            held[L2] = jax.numpy.asarray(coefficient, jax.numpy.float32)
        return held or None

    def _l2_of_trainer(self) -> float:
        return default_value(self._trainer.optimizer_hparams, L2) or 0.0

    def _default(self, name: str) -> float | None:
        if name in self._trainer.hparams:
            return float(self._trainer.hparams[name])
        return default_value(self._trainer.optimizer_hparams, name)


def read_members(trainer: TrainerModule, members: object) -> list[Given]:
    """The members of a population as checked values.

    Raises:
        UnknownNameError: for a hyperparameter that does not exist.
        ConfigurationError: for one that cannot vary within one program, and for values that are no
            numbers; before anything is compiled.
    """
    is_sequence = isinstance(members, Iterable) and not isinstance(members, Mapping | str)
    listed = list(cast("Iterable[object]", members)) if is_sequence else []
    if not listed:
        raise ConfigurationError(
            f"Received members={members!r}; expected a list with a dict for each member. Write "
            'members=[{"seed": seed, "lr": 1e-3} for seed in range(8)].'
        )
    kinds = kinds_of_names(trainer, _names(listed))
    _check_names(listed, kinds)
    _check_groups(trainer, listed, kinds)
    return [read_member(trainer, member, number, kinds) for number, member in enumerate(listed)]


def read_member(
    trainer: TrainerModule, member: object, number: int, kinds: Mapping[str, bool] | None = None
) -> Given:
    """One member as checked values; see `read_members`."""
    kinds = kinds_of_names(trainer, _names([member])) if kinds is None else kinds
    _check_names([member], kinds, first=number)
    named = cast("Mapping[str, Any]", member)
    values = {name: value for name, value in named.items() if name != SEED and kinds[name]}
    for name, value in values.items():
        if not _is_number(value):
            raise ConfigurationError(
                f"Received {name}={value!r} ({type(value).__name__}) for member {number}; expected "
                "a finite number. Members vary in numbers; what else differs needs a population of "
                "its own."
            )
    numbers_ = {str(name): float(value) for name, value in values.items()}
    _check_static(trainer, named, kinds, number)
    _check_optimizer_values(trainer, numbers_, number)
    return Given(_seed(named.get(SEED, trainer.seed), number), numbers_)


def kinds_of_names(trainer: TrainerModule, wanted: Collection[str]) -> dict[str, bool]:
    """Every name that a member may hold, and whether it may differ between members.

    The names that may not are those of the model and of what else is part of the compiled program:
    members with different ones need populations of their own.

    Args:
        trainer: whose hyperparameters they are.
        wanted: the names for which the answer counts.
    """
    kinds = dict.fromkeys(trainer.model_hparams, False)
    kinds |= traceable(trainer.optimizer_hparams, wanted)
    if L2 in kinds:
        kinds[L2] = not overrides(trainer, "create_functions")
    kinds |= {name: is_traced_hyperparameter(value) for name, value in trainer.hparams.items()}
    return kinds | {SEED: True}


def static_value(trainer: TrainerModule, name: str) -> Any:
    """What the trainer has under a name that may not differ between members."""
    homes = (trainer.hparams, trainer.model_hparams, flat(trainer.optimizer_hparams))
    return next((home[name] for home in homes if name in home), None)


def _check_names(members: Sequence[object], kinds: Mapping[str, bool], first: int = 0) -> None:
    for number, member in enumerate(members, start=first):
        if not isinstance(member, Mapping):
            raise ConfigurationError(
                f"Received {member!r} ({type(member).__name__}) as member {number}; expected a "
                'dict of its seed and hyperparameters. Write {"seed": 0, "lr": 1e-3}.'
            )
        for name in cast("Mapping[Any, Any]", member):
            if name not in kinds:
                raise unknown_name(f"hyperparameter of member {number}", name, kinds)


def _check_groups(
    trainer: TrainerModule, members: Sequence[Any], kinds: Mapping[str, bool]
) -> None:
    """Refuses members that differ in what is part of the compiled program."""
    for name in dict.fromkeys(key for member in members for key in member):
        if not kinds[name]:
            groups: dict[str, list[int]] = {}
            for number, member in enumerate(members):
                value = repr(member.get(name, static_value(trainer, name)))
                groups.setdefault(value, []).append(number)
            if set(groups) != {repr(static_value(trainer, name))}:
                raise _static(trainer, name, groups)


def _check_static(
    trainer: TrainerModule, member: Mapping[str, Any], kinds: Mapping[str, bool], number: int
) -> None:
    for name, value in member.items():
        if not kinds[name] and repr(value) != repr(static_value(trainer, name)):
            raise _static(trainer, name, {repr(value): [number]})


def _static(
    trainer: TrainerModule, name: str, groups: Mapping[str, list[int]]
) -> ConfigurationError:
    own = static_value(trainer, name)
    shown = "; ".join(f"{name}={value}: members {_listed(n)}" for value, n in groups.items())
    home = "model_hparams" if name in trainer.model_hparams else "the trainer"
    if name in trainer.hparams and isinstance(own, int) and not isinstance(own, bool):
        home = f"the trainer as {name}={float(own)}, so that it is a traced number, or"
    return ConfigurationError(
        f"Received members with {name}, which changes shapes or is fixed in the compiled "
        "program; expected numbers that are values in it. These are groups for one population "
        f"each: {shown}. Write {name} into {home}, and one Population for each group."
    )


def _check_optimizer_values(
    trainer: TrainerModule, values: Mapping[str, float], number: int
) -> None:
    """Has the settings themselves refuse what a single run would refuse."""
    hparams = trainer.optimizer_hparams
    if not isinstance(hparams, Mapping):
        return
    own = {name: value for name, value in values.items() if name not in trainer.hparams}
    try:
        check_settings(changed(cast("Mapping[str, Any]", hparams), own))
    except OptimizerError as error:
        error.add_note(f"raised for member {number} of the population: {own}")
        raise


def _names(members: Sequence[object]) -> set[str]:
    return {
        str(name)
        for member in members
        if isinstance(member, Mapping)
        for name in cast("Mapping[object, object]", member)
    }


def _seed(value: object, number: int) -> int:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise ConfigurationError(
        f"Received seed={value!r} ({type(value).__name__}) for member {number}; expected a whole "
        'number. Write {"seed": 0, ...}.'
    )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _listed(members: Sequence[int]) -> str:
    shown = ", ".join(map(str, members[:8]))
    return shown + (f" and {len(members) - 8} more" if len(members) > 8 else "")
