"""When a run validates, and on what: named evaluations, each with the common cadence or its own."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from boltax._base._evaluation import Evaluation, evaluations_of, prefix_of
from boltax._base._triggers import Every


@dataclass
class Cadence:
    """When something is due, and when it last was.

    Attributes:
        trigger: when it is due.
        last_at: `time.monotonic()` of the last time.
        last_step: the step of the last time.
        is_told: whether it is time by the clock of the job's first process; None where there is no
            other.
    """

    trigger: Every = field(default_factory=Every)
    last_at: float = field(default_factory=time.monotonic)
    last_step: int = 0
    is_told: bool | None = None

    def is_time(self) -> bool:
        """Whether it is due by the clock of this process."""
        return self.trigger.is_time(time.monotonic() - self.last_at)

    @property
    def is_within_epochs(self) -> bool:
        """Whether it may be due within an epoch."""
        return self.trigger.steps is not None or self.trigger.minutes is not None

    def is_due(self, step: int, ended_epoch: int | None) -> bool:
        """Whether it is due after a step.

        Args:
            step: completed steps.
            ended_epoch: the epoch that ends with it; None within one.
        """
        is_time = self.is_time() if self.is_told is None else self.is_told
        if ended_epoch is None:
            is_counted = self.trigger.is_due(step=step, seconds=0.0)
            return self.is_within_epochs and (is_time or is_counted)
        every = self.trigger.steps
        # steps of a trainer's own loop may have gone past one
        is_passed = every is not None and step // every > self.last_step // every
        is_counted = self.trigger.is_due(step=step, seconds=0.0, ended_epoch=ended_epoch)
        return is_passed or is_time or is_counted

    def note(self, step: int) -> None:
        """Begins to count anew: it was done after this step."""
        self.last_at, self.last_step = time.monotonic(), step


@dataclass
class Validations:
    """The evaluations of a run, and when each is due.

    Attributes:
        cadence: of those that have none of their own.
        is_at_start: whether all of them come before the first step.
        given: the validation data as the user gave them.
        evaluations: by name; a single loader has an empty one.
        own: the cadences of those that have one.
        due: the names of those that take part in the validation of now.
    """

    cadence: Cadence = field(default_factory=Cadence)
    is_at_start: bool = False
    given: Any = None
    evaluations: dict[str, Evaluation] = field(default_factory=dict[str, Evaluation])
    own: dict[str, Cadence] = field(default_factory=dict[str, Cadence])
    due: tuple[str, ...] = ()

    @classmethod
    def of(cls, trigger: Every, given: Any, *, is_at_start: bool) -> "Validations":
        """The evaluations that an argument stands for."""
        found = evaluations_of(given, "val_loader")
        own = {n: Cadence(one.trigger) for n, one in found.items() if one.trigger is not None}
        return cls(Cadence(trigger), is_at_start, given, found, own)

    @property
    def is_within_epochs(self) -> bool:
        """Whether validations may come within an epoch."""
        return any(each.is_within_epochs for each in (self.cadence, *self.own.values()))

    @property
    def is_by_step(self) -> bool:
        """Whether an epoch may have another number of validations than one or none."""
        return self.is_within_epochs or self.is_at_start

    def times(self) -> int:
        """Which cadences are due by the clock of this process, a bit for each."""
        each = (self.cadence, *self.own.values())
        return sum(cadence.is_time() << place for place, cadence in enumerate(each))

    def tell(self, times: int) -> None:
        """Notes which are due by the clock of the job's first process."""
        for place, cadence in enumerate((self.cadence, *self.own.values())):
            cadence.is_told = bool(times >> place & 1)

    @property
    def key(self) -> str:
        """What tells the rows of the history apart."""
        return "step" if self.is_by_step else "epoch"

    @property
    def is_complete(self) -> bool:
        """Whether all evaluations take part in the validation of now."""
        return len(self.due) == len(self.evaluations)

    def has_all(self, names: Collection[str], metrics: Collection[str]) -> bool:
        """Whether followed metrics are there, or should be, since all evaluations took part."""
        return self.is_complete or all(name in metrics for name in names)

    @property
    def is_main_due(self) -> bool:
        """Whether those without a cadence of their own take part, or there are none."""
        main = self.evaluations.keys() - self.own.keys()
        return not main or bool(main & set(self.due))

    @property
    def first_loader(self) -> Any:
        """The first loader that is evaluated with the loss; None where there is none."""
        each = self.evaluations.values()
        return next((one.loader for one in each if one.function is None), None)

    def known_later(self, names: Iterable[str]) -> list[str]:
        """Those of some names that functions may give: nobody knows before they are called."""
        named = self.evaluations.items()
        prefixes = tuple(prefix_of("val", name) for name, one in named if one.function is not None)
        return [name for name in names if prefixes and name.startswith(prefixes)]

    @property
    def steps(self) -> list[int]:
        """The numbers of steps of which a multiple ends with a validation."""
        triggers = [each.trigger.steps for each in (self.cadence, *self.own.values())]
        return [steps for steps in triggers if steps is not None]

    def ask(self, step: int, ended_epoch: int | None = None) -> bool:
        """Whether a validation is due after a step; notes which evaluations take part.

        Args:
            step: completed steps.
            ended_epoch: the epoch that ends with it; None within one.
        """
        is_main = self.cadence.is_due(step, ended_epoch)
        own = {name for name, each in self.own.items() if each.is_due(step, ended_epoch)}
        self.due = tuple(
            name for name in self.evaluations if (name in own if name in self.own else is_main)
        )
        # without validation data the newest model is the best one
        return bool(self.due) or (is_main and not self.evaluations)

    def take_all(self) -> None:
        """Has all evaluations take part in the validation that comes."""
        self.due = tuple(self.evaluations)

    def note(self, step: int) -> None:
        """Begins to count anew for those that took part."""
        if self.is_main_due:
            self.cadence.note(step)
        for name in self.due:
            if name in self.own:
                self.own[name].note(step)

    def go_on_from(self, step: int) -> None:
        """Begins to count anew for all of them, at the step of the last validation."""
        for each in (self.cadence, *self.own.values()):
            each.note(step)

    def still_to_come(self, step: int, total: int | None, epoch: int, epochs: int | None) -> int:
        """The validations that are still to come, with this one.

        Args:
            step: completed steps.
            total: steps in all, if known.
            epoch: the running epoch.
            epochs: epochs in all, if known.
        """
        trigger = self.cadence.trigger
        if trigger.steps is not None:
            return 1 if total is None else 1 + max(0, total - step) // trigger.steps
        if trigger.epochs is not None:
            return 1 if epochs is None else 1 + max(0, epochs - epoch) // trigger.epochs
        return 1
