"""Which trials can share a compiled program: those whose trainers differ in traced numbers alone.

`make_trainer` says what a hyperparameter means, so what counts is what its trainer is made with.
The numbers in a dict of `optimizer_hparams` and the floats among the extra hyperparameters, which
`loss_function` reads as ``model.hparams``, are values in the program; all else is the program.
Of these numbers the study varies some; the others are constants, as in a run of their own.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from boltax._base._monitor import GUIDE_ORDER, Monitor, none_of
from boltax._build._construction import previewing
from boltax._build._remade import describe_trainer
from boltax.errors import ConfigurationError, noting
from boltax.optim._named import changed, flat
from boltax.trainer import TrainerModule
from boltax.tune._members import validation_metrics
from boltax.tune._space import SearchSpace, optuna_module
from boltax.tune._values import SEED, kinds_of_names

if TYPE_CHECKING:
    import optuna

MakeTrainer = Callable[..., Any]
LOOKS = 8
"""Configurations that are looked at to see which numbers vary."""


@dataclass(frozen=True)
class Description:
    """What a trainer is made with.

    Attributes:
        program: what decides the compiled program, by name.
        values: the numbers in it that may differ between members of a population, with the seed.
    """

    program: Mapping[str, Any]
    values: Mapping[str, Any]

    def shares_program(self, other: "Description") -> bool:
        """Whether both trainers can be members of one population."""
        return self.values.keys() == other.values.keys() and is_same(self.program, other.program)

    def varying(self, names: Collection[str]) -> "Description":
        """A description with these numbers as values, and the others as parts of the program."""
        values = {name: value for name, value in self.values.items() if name in names}
        constants = {name: value for name, value in self.values.items() if name not in names}
        return Description({**self.program, "constants": constants}, values)


def described_trainer(
    make_trainer: MakeTrainer, hyperparameters: Mapping[str, Any]
) -> TrainerModule:
    """The trainer that `make_trainer` would make, with its arguments and nothing else.

    Raises:
        ConfigurationError: when it makes none.
    """
    made = describe_trainer(lambda: make_trainer(**hyperparameters))
    if made is None:
        raise ConfigurationError(
            f"Received make_trainer={make_trainer!r}, which makes no trainer for "
            f"{dict(hyperparameters)!r}; expected a function from hyperparameters to a "
            "boltax.TrainerModule. Write def make_trainer(lr): return MyTrainer(...)."
        )
    return cast("TrainerModule", made)


def monitor_of_trainers(make_trainer: MakeTrainer, space: SearchSpace) -> Monitor:
    """What tells the best model of the trainers of a space: their monitor, or the guide's order.

    Raises:
        MetricsError: when a trainer has no monitor, and none of the guide's metrics.
    """
    hyperparameters, trainer = _first_described(make_trainer, space)
    if (monitor := trainer.monitor) is not None:
        return monitor
    metrics: Mapping[str, Any] = {}
    with suppress(Exception), previewing():  # a trial will tell what is wrong
        metrics = validation_metrics(make_trainer(**hyperparameters))
    if not metrics:  # nobody knows before a validation
        return GUIDE_ORDER[1]
    known = [monitor for monitor in GUIDE_ORDER if monitor[0] in metrics]
    if not known:
        raise none_of(GUIDE_ORDER, metrics)
    return known[0]


def varied_names(make_trainer: MakeTrainer, space: SearchSpace) -> set[str]:
    """The numbers that differ between trials, by a look at some configurations of the space.

    One that is overlooked costs a group for each of its values, and nothing else.
    """
    seen: dict[str, set[Any]] = {SEED: {None, ...}}
    for trial in _looks(space, LOOKS):
        with suppress(Exception):  # a trial of this configuration will tell what is wrong
            trainer = described_trainer(make_trainer, space.hyperparameters(trial))
            for name, value in description_of(trainer).values.items():
                seen.setdefault(name, set()).add(value)
    return {name for name, values in seen.items() if len(values) > 1}


def _first_described(
    make_trainer: MakeTrainer, space: SearchSpace
) -> tuple[dict[str, Any], TrainerModule]:
    """The first of some configurations whose trainer can be made, described.

    Raises:
        Exception: what the last one raised, when none can.
    """
    for number, trial in enumerate(_looks(space, LOOKS), 1):
        try:
            with noting("make_trainer", "before the study"):
                hyperparameters = space.hyperparameters(trial)
                return hyperparameters, described_trainer(make_trainer, hyperparameters)
        except Exception:
            if number == LOOKS:
                raise
    raise AssertionError("there are some looks")


def _looks(space: SearchSpace, number: int) -> "Generator[optuna.Trial]":
    """Trials with some configurations of the space, always the same, in a study of their own."""
    optuna = optuna_module()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.logging.set_verbosity(verbosity)
    for _ in range(number):
        yield study.ask(space.distributions)


def description_of(trainer: TrainerModule) -> Description:
    """What a trainer was made with."""
    optimizer: Any = trainer.optimizer_hparams
    numbers = {name: value for name, value in flat(optimizer).items() if _is_number(value)}
    kinds = kinds_of_names(trainer, numbers)
    traced = {name: numbers[name] for name in numbers if kinds[name]}
    of_loss = {name: value for name, value in trainer.hparams.items() if kinds[name]}
    if isinstance(optimizer, Mapping):
        optimizer = changed(cast("Mapping[str, Any]", optimizer), dict.fromkeys(traced))
    return Description(
        program={
            "class": type(trainer),
            "model_class": trainer.model_class,
            "model_hparams": trainer.model_hparams,
            "optimizer_hparams": optimizer,
            "hparams": {n: v for n, v in trainer.hparams.items() if n not in of_loss},
            "options": (trainer.loop, trainer.monitor, trainer.debug),
            "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        },
        values={SEED: trainer.seed, **{n: float(v) for n, v in {**traced, **of_loss}.items()}},
    )


def is_same(left: Any, right: Any) -> bool:
    """Whether two hyperparameters are equal; functions are, when they are the same object."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        left, right = cast("dict[Any, Any]", left), cast("dict[Any, Any]", right)
        return left.keys() == right.keys() and all(is_same(left[n], right[n]) for n in left)
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        parts = cast("tuple[Any, ...]", left)
        return len(parts) == len(right) and all(map(is_same, parts, right))
    if isinstance(left, np.ndarray | jax.Array):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return bool(left == right)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
