"""What a schedule is, what it may know of the run, and the checks that all schedules share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from boltax.errors import OptimizerError, unknown_name
from boltax.optim._adapt import optax_promotion
from boltax.optim._plateau import Plateau

Shape: TypeAlias = Callable[[Any], Any]
"""A factor by step, where the step counts completed updates."""


@dataclass(frozen=True)
class Schedule:
    """A schedule that is ready to run: the learning rate is ``base * shape(step)``.

    Attributes:
        base: the learning rate that the shape multiplies.
        shape: the factor; None where it is 1 at every step.
        describe: a few words for logs.
        plateau: what lets the learning rate fall beside that; None where nothing does.
    """

    base: float
    shape: Shape | None
    describe: str
    plateau: Plateau | None = None


@dataclass(frozen=True)
class Horizon:
    """What a schedule may know of the run.

    Attributes:
        total_steps: optimizer updates of the whole run; None when nobody knows.
        warmup: the user's `warmup`: steps, or a fraction of the run.
    """

    total_steps: int | None
    warmup: int | float

    def total(self, who: str) -> int:
        """The steps of the run, without which `who` cannot do."""
        if self.total_steps is not None:
            return self.total_steps
        raise OptimizerError(
            f"Received {who} for a run whose number of steps is unknown (total_steps=None); "
            "expected a known number, because it is laid out over the whole run. For a loader "
            "without len(), write loop=LoopOptions(steps_per_epoch=...) or "
            'train_model(..., max_steps=...); or write schedule="constant", with warmup in steps.'
        )

    def warmup_steps(self) -> int:
        """The steps of the warmup."""
        if isinstance(self.warmup, int):
            return self.warmup
        return round(self.warmup * self.total(f"warmup={self.warmup:g}, a fraction of the run,"))

    def rest(self, who: str) -> int:
        """The steps after the warmup, of which there must be one at least."""
        total, warmup = self.total(who), self.warmup_steps()
        if warmup < total:
            return total - warmup
        raise OptimizerError(
            f"Received warmup={self.warmup} with {who} for a run of {total} steps; expected a "
            "warmup that is shorter than the run. Write fewer steps, or a fraction of the run such "
            "as warmup=0.1."
        )

    def boundary(self, key: Any) -> int:
        """A step, written as one, as a fraction of the run, or as text (JSON has no other keys)."""
        number = float(key)
        is_fraction = 0 < number < 1
        return round(number * self.total(f"boundary {key}")) if is_fraction else int(number)

    def describe(self) -> str:
        """The warmup in words, for logs."""
        of = "" if self.total_steps is None else f" of {self.total_steps}"
        return f" (warmup {self.warmup_steps()}{of})" if self.warmup else ""


def lenient(shape: Shape) -> Shape:
    """`shape` of optax, which divides whole numbers, under any dtype promotion."""

    def of_step(step: Any) -> Any:
        with optax_promotion():
            return shape(step)

    return of_step


def check_arguments(
    name: str, arguments: Mapping[str, Any], parameters: Mapping[str, Any], filled: set[str]
) -> None:
    """Raises for unknown arguments, and for required ones that are neither given nor filled in."""
    known = [parameter for parameter in parameters if parameter != "run"]
    for argument in arguments:
        if argument not in known:
            raise unknown_name(f"argument of schedule {name!r}", argument, known)
    required = {key for key, value in parameters.items() if value.default is value.empty}
    missing = sorted(required - filled - arguments.keys())
    if missing:
        raise OptimizerError(
            f"Received schedule {name!r} with {', '.join(arguments) or 'no arguments'}; expected "
            f"{', '.join(missing)} too. "
            f'Write schedule={{"name": "{name}", "{missing[0]}": ...}}.'
        )


def two_values(key: str, value: float, what: str, where: str) -> OptimizerError:
    """The error for a value that is given in two places."""
    return OptimizerError(
        f"Received {key}={value:g} beside {what}; expected the value in one place, and there it "
        f"is set by {where}. Leave {key} out."
    )
