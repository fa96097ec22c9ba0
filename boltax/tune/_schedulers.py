"""Schedulers: what a population does between epochs, in an object of its own.

After each validation the population hands a scheduler a frozen `PopulationView`, and does what it
asks for:

- `Stop(member, reason)`: the member leaves. Its numbers stay in the table; its place on the device
  is given up as soon as that saves more than it costs.
- `Replace(member, values)`: a fresh member takes the place of this one, with a number, a seed and
  hyperparameters of its own. It is initialised anew and counts its epochs from 0.
- `Overwrite(member, source, values)`: the member goes on as a copy of another one (parameters,
  optimizer, statistics, steps), with some hyperparameters changed. It keeps its number, its random
  stream and its count of epochs.

Overwriting and replacing happen on the device: no process is started, no file is written, nothing
is compiled again. A member that has ended can be replaced, and cannot be overwritten.

All members share one stream of batches: pass k of the population is epoch k of the loader,
whatever the age of a member. So a member that was there from the start equals its single run, and
one that took a place at pass k equals a single run that is given the loader's epochs from k on.

Nothing here knows JAX. A scheduler holds no reference to the population and changes nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, cast

import numpy as np

from boltax._base._monitor import (
    Followed,
    Monitor,
    check_form,
    check_monitors,
    followed_of,
    missing,
)
from boltax._base._triggers import Every
from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError, unknown_name


class Status(Enum):
    """What a member is doing."""

    TRAINING = "training"
    FINISHED = "finished"
    """The member has trained for all of its epochs."""
    STOPPED = "stopped"
    """A scheduler has stopped or replaced it."""
    DIVERGED = "diverged"
    """The loss or a gradient of the member was not finite; the others go on."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a population, as it is at one moment.

    Attributes:
        number: which one; it stays the same. Replacements get the next free numbers.
        seed: of its parameters and its random streams.
        values: those of its hyperparameters that the population varies: as given, or else the
            trainer's own, and as schedulers have changed them.
        epoch: its own completed epochs.
        step: its own completed optimizer updates.
        metrics: ``train/...`` and ``val/...`` of its last epoch; empty before.
        best: those of its best validation; None before, and when none was finite.
        status: see `Status`.
        reason: why it has ended; empty while it trains.
        replaces: the number of the member whose place it took; None for the first ones.
        copied_from: the numbers of the members that it was overwritten with, the last one last.
    """

    number: int
    seed: int
    values: Mapping[str, float]
    epoch: int = 0
    step: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    best: Mapping[str, Any] | None = None
    status: Status = Status.TRAINING
    reason: str = ""
    replaces: int | None = None
    copied_from: tuple[int, ...] = ()

    @property
    def is_training(self) -> bool:
        """Whether it has not ended."""
        return self.status is Status.TRAINING


@dataclass(frozen=True, kw_only=True)
class PopulationView:
    """A population as a scheduler sees it, after a validation.

    Attributes:
        epoch: completed passes over the training data, by which the stream of batches is counted.
        num_epochs: epochs that each member trains.
        members: all members that there ever were, by number, with those that have ended. Those
            whose last epoch this was are among them, as finished, and can be replaced.
        monitor: the trainer's ``(metric, "min" or "max")``; None when it has none.
        step: completed steps of the population.
        epochs_since: passes that have ended since the validation before; 0 where both are within
            one.
        steps_since: steps since the validation before.
    """

    epoch: int
    num_epochs: int
    members: tuple[Member, ...]
    monitor: tuple[str, str] | None = None
    step: int = 0
    epochs_since: int = 1
    steps_since: int = 0

    @property
    def training(self) -> tuple[Member, ...]:
        """The members that have not ended."""
        return tuple(member for member in self.members if member.is_training)


@dataclass(frozen=True)
class Stop:
    """Asks that a member ends.

    Attributes:
        member: its number.
        reason: why, as a person will read it.
    """

    member: int
    reason: str


@dataclass(frozen=True)
class Replace:
    """Asks that a fresh member takes the place of another one, which ends if it has not.

    Attributes:
        member: the number of the one that goes.
        values: ``"seed"`` and hyperparameters of the one that comes, as in `Population`.
        reason: why, as a person will read it.
    """

    member: int
    values: Mapping[str, Any]
    reason: str = "replaced"


@dataclass(frozen=True)
class Overwrite:
    """Asks that a member goes on as a copy of another one.

    Attributes:
        member: the number of the one that is overwritten.
        source: the number of the one that is copied, as it is at the moment of the view.
        values: hyperparameters that differ from those of the source.
    """

    member: int
    source: int
    values: Mapping[str, float] = field(default_factory=dict[str, Any])


Request: TypeAlias = Stop | Replace | Overwrite
"""What a scheduler may ask for."""

Requests: TypeAlias = Request | Sequence[Request] | None
"""What a scheduler returns."""


class Scheduler:
    """Base of schedulers: override what is needed.

    Example:
        >>> class StopTheLast(Scheduler):
        ...     def on_validation_epoch_end(self, view):
        ...         last = min(view.training, key=lambda member: member.metrics["val/acc"])
        ...         return Stop(last.number, "it was the last")
        >>> members = tuple(Member(number=i, seed=i, values={}, metrics={"val/acc": 0.5 + i})
        ...                 for i in range(3))
        >>> StopTheLast().on_validation_epoch_end(
        ...     PopulationView(epoch=1, num_epochs=5, members=members))
        Stop(member=0, reason='it was the last')
    """

    def on_validation_epoch_end(self, view: PopulationView) -> Requests:
        """Called after each validation, or after each epoch of training where there is none.

        Args:
            view: the population at this moment.

        Returns:
            What to do, or nothing. Requests are carried out together: a source is copied as it was
            in the view.
        """
        return None

    def expected_passes(self, num_epochs: int) -> int:
        """Passes over the data that are to be expected; asked before the first step.

        The more there are, the longer it pays to look for the fastest way to train. A scheduler
        that replaces members knows of more than the epochs of each.

        Args:
            num_epochs: epochs of each member.
        """
        return num_epochs

    def state_dict(self) -> Mapping[str, Any]:
        """What a resume checkpoint has to hold of this object, as plain JSON."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Called before a resumed population goes on.

        Args:
            state: what `state_dict` returned.
        """


class SuccessiveHalving(Scheduler):
    """Stops the worse part of the members at growing intervals, and lets the best go on.

    When members have trained for `min_epochs`, ``min_epochs * factor``, ``min_epochs * factor**2``
    ... epochs, the best ``1 / factor`` of those that come to that point together go on, at least
    one. So `factor` times fewer members train `factor` times longer. It is done at the first
    validation behind such a point.

    Args:
        monitor: metric by which members are compared, and ``"min"`` or ``"max"``; None for the
            trainer's monitor.
        min_epochs: epochs before the first halving.
        factor: see above; 2 halves.
        min_steps: counts steps in place of epochs, for ``train_model(validate_every=...)``.

    Raises:
        ConfigurationError: for arguments that cannot work.

    Example:
        >>> halving = SuccessiveHalving(("val/loss", "min"), factor=2)
        >>> members = tuple(Member(number=i, seed=i, values={}, epoch=1, metrics={"val/loss": loss})
        ...                 for i, loss in enumerate([0.3, 0.9, 0.1, 0.5]))
        >>> view = PopulationView(epoch=1, num_epochs=8, members=members)
        >>> [stop.member for stop in halving.on_validation_epoch_end(view)]
        [3, 1]

    References:
        Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
        optimization", AISTATS 2016.
    """

    def __init__(
        self,
        monitor: tuple[str, str] | None = None,
        *,
        min_epochs: int = 1,
        factor: int = 2,
        min_steps: int | None = None,
    ) -> None:
        name = "SuccessiveHalving"
        check_form(monitor)
        _check_whole(name, 1, min_epochs=min_epochs)
        _check_whole(name, 2, factor=factor)
        if min_steps is not None:
            _check_whole(name, 1, min_steps=min_steps)
            if min_epochs != 1:
                raise ConfigurationError(
                    f"Received {name}(min_epochs={min_epochs}, min_steps={min_steps}); expected "
                    f"one of them. Write {name}(min_steps={min_steps})."
                )
        self.monitor, self.min_epochs, self.factor = monitor, min_epochs, factor
        self.min_steps = min_steps

    def on_validation_epoch_end(self, view: PopulationView) -> Requests:
        """Stops the worse members of those that have come to one of the intervals' ends."""
        requests: list[Request] = []
        unit = "epoch" if self.min_steps is None else "step"
        since = view.epochs_since if unit == "epoch" else view.steps_since
        ages = {member.number: getattr(member, unit) for member in view.training}
        for age in sorted(set(ages.values())):
            if not self._is_behind_a_rung(age - since, age):
                continue
            monitor = monitor_of(self, view.monitor)
            came = [member for member in view.training if ages[member.number] == age]
            ranked = best_first(monitor, came, type(self).__name__)
            kept = max(1, len(ranked) // self.factor)
            requests += [
                Stop(member.number, f"not among the best {kept} of {len(ranked)} at {unit} {age}")
                for member in ranked[kept:]
            ]
        return requests

    def _is_behind_a_rung(self, before: int, now: int) -> bool:
        """Whether one of the intervals ends between two ages, or at the second of them."""
        rung = self.min_steps or self.min_epochs
        while rung <= before:
            rung *= self.factor
        return rung <= now


class PopulationBasedTraining(Scheduler):
    """Overwrites the worst members with perturbed copies of the best, every few epochs.

    Each of the worst `quantile` of the members becomes a copy of one of the best `quantile`, drawn
    at random, with each of the `perturb` hyperparameters multiplied by one of `factors`, or drawn
    anew within its bounds with the probability `resample` (log-uniformly). What is drawn depends on
    `seed`, epoch and member alone, so a population that is resumed does the same.

    Args:
        monitor: metric by which members are compared, and ``"min"`` or ``"max"``; None for the
            trainer's monitor.
        perturb: the hyperparameters to change, each with its lower and upper bound, or None for no
            bounds.
        every: epochs between two such moments, or ``boltax.Every(steps=...)``; it is done at the
            first validation behind each.
        quantile: part of the members that is overwritten, at most half.
        factors: by one of which a hyperparameter is multiplied.
        resample: probability of a new value in place of a multiple; needs bounds above 0.
        seed: of the draws.

    Raises:
        ConfigurationError: for arguments that cannot work.

    Example:
        >>> evolve = PopulationBasedTraining(("val/acc", "max"), {"lr": (1e-5, 1.0)})
        >>> members = tuple(Member(number=i, seed=i, values={"lr": 0.1}, metrics={"val/acc": acc})
        ...                 for i, acc in enumerate([0.9, 0.2, 0.6, 0.5]))
        >>> view = PopulationView(epoch=1, num_epochs=8, members=members)
        >>> [(r.member, r.source) for r in evolve.on_validation_epoch_end(view)]
        [(1, 0)]

    References:
        Jaderberg et al., "Population based training of neural networks", 2017.
    """

    def __init__(
        self,
        monitor: tuple[str, str] | None,
        perturb: Mapping[str, tuple[float, float] | None],
        *,
        every: int | Every = 1,
        quantile: float = 0.25,
        factors: Sequence[float] = (0.8, 1.2),
        resample: float = 0.0,
        seed: int = 0,
    ) -> None:
        name = "PopulationBasedTraining"
        check_form(monitor)
        steps = every.steps if isinstance(every, Every) else None
        if isinstance(every, Every):
            if every != Every(steps=steps) and every != Every(epochs=every.epochs):
                raise ConfigurationError(
                    f"Received {name}(every={every}); expected steps or epochs, since members go "
                    "on together. Write every=boltax.Every(steps=1000)."
                )
            every = every.steps or every.epochs or 0
        _check_whole(name, 1, every=every)
        _check_perturb(perturb, resample)
        if not 0 < quantile <= 0.5 or not factors or not all(f > 0 for f in factors):
            raise ConfigurationError(
                f"Received {name}(quantile={quantile!r}, factors={factors!r}); expected a part "
                "above 0 and at most 0.5, and positive factors. Write quantile=0.25, "
                "factors=(0.8, 1.2)."
            )
        self.monitor, self.perturb, self.every = monitor, dict(perturb), every
        self._is_by_step = steps is not None
        self.quantile, self.factors = quantile, tuple(factors)
        self.resample, self.seed = resample, seed

    def on_validation_epoch_end(self, view: PopulationView) -> Requests:
        """Overwrites the worst members, when it is time."""
        now, since = view.epoch, view.epochs_since
        if self._is_by_step:
            now, since = view.step, view.steps_since
        if now // self.every == (now - since) // self.every:
            return []
        monitor = monitor_of(self, view.monitor)
        ranked = best_first(monitor, view.training, type(self).__name__)
        if len(ranked) < 2:
            return []
        number = max(1, int(len(ranked) * self.quantile))
        return [self._overwrite(view, member, ranked[:number]) for member in ranked[-number:]]

    def _overwrite(self, view: PopulationView, member: Member, best: Sequence[Member]) -> Overwrite:
        when = view.step if self._is_by_step else view.epoch
        draw = np.random.default_rng([self.seed, when, member.number])
        source = best[int(draw.integers(len(best)))]
        values: dict[str, float] = {}
        for name, bounds in self.perturb.items():
            if name not in source.values:
                raise unknown_name(
                    f"hyperparameter to perturb of member {source.number}", name, source.values
                )
            value = source.values[name] * self.factors[int(draw.integers(len(self.factors)))]
            fresh, is_fresh = draw.random(), draw.random() < self.resample
            if bounds is not None:
                low, high = bounds
                value = low * (high / low) ** fresh if is_fresh else min(max(value, low), high)
            values[name] = float(value)
        return Overwrite(member.number, source.number, values)


def monitor_of(scheduler: Any, monitor: Monitor | None) -> Monitor:
    """What a scheduler compares members by: its own monitor, or else the trainer's.

    Args:
        scheduler: one with the attribute `monitor`.
        monitor: that of the trainer.

    Raises:
        ConfigurationError: when there is neither.
    """
    found: Monitor | None = scheduler.monitor or monitor
    if found is None:
        name = type(scheduler).__name__
        raise ConfigurationError(
            f"Received {name} without a monitor, for a trainer that has none either; expected a "
            f"metric and a direction. Write {name}(monitor=('val/loss', 'min')), or "
            "monitor=('val/loss', 'min') for the trainer."
        )
    return found


def best_first(
    monitor: tuple[str, str], members: Iterable[Member], owner: str = ""
) -> list[Member]:
    """Members from the best to the worst; a metric that is not finite is the worst of all.

    Args:
        monitor: the metric, and ``"min"`` or ``"max"``.
        members: members that have the metric.
        owner: whose monitor it is, for messages.

    Raises:
        MetricsError: when a member has no such metric.
    """
    name, mode = monitor

    def key(member: Member) -> tuple[bool, float, int]:
        if name not in member.metrics:
            error = missing(Followed(name, mode, owner), member.metrics)
            error.add_note(f"of member {member.number}; val/ metrics need a val_loader")
            raise error
        value = float(member.metrics[name])
        return not np.isfinite(value), value if mode == "min" else -value, member.number

    return sorted(members, key=key)


def check_names(
    scheduler: Scheduler,
    monitor: Monitor | None,
    names: Collection[str],
    phases: Collection[str],
) -> None:
    """Refuses a scheduler or a trainer's monitor that follows a metric that members will not have.

    Args:
        scheduler: the scheduler; what it follows is its attribute `monitor`.
        monitor: that of the trainer.
        names: the names of metrics that are known.
        phases: those whose metrics are all among them, ``"val"`` and ``"train"``.

    Raises:
        ConfigurationError: for a scheduler that is to follow the trainer's monitor where it has
            none.
        MetricsError: for a metric that there will not be, with what was probably meant.
    """
    own = followed_of(scheduler)
    if own is None and hasattr(scheduler, "monitor"):
        monitor_of(scheduler, monitor)
    of_trainer = None if monitor is None else Followed(*monitor)
    check_monitors([f for f in (own, of_trainer) if f is not None], names, phases)


def as_requests(answer: object, scheduler: Scheduler) -> list[Request]:
    """What a scheduler returned, as a list.

    Raises:
        ConfigurationError: when it returned something else than requests.
    """
    if answer is None:
        return []
    if isinstance(answer, Stop | Replace | Overwrite):
        return [answer]
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        requests = list(cast("Sequence[object]", answer))
        if all(isinstance(request, Stop | Replace | Overwrite) for request in requests):
            return cast("list[Request]", requests)
    raise ConfigurationError(
        f"Received {answer!r} from {type(scheduler).__name__}.on_validation_epoch_end; expected "
        "Stop(member, reason), Replace(member, values), Overwrite(member, source, values), a list "
        "of these, or None."
    )


def _check_whole(owner: str, least: int, **values: object) -> None:
    for name, value in values.items():
        if not is_whole(value, least):
            raise ConfigurationError(
                f"Received {owner}({name}={value!r}); expected a whole number of at least {least}."
            )


def _check_perturb(perturb: Mapping[str, tuple[float, float] | None], resample: float) -> None:
    for name, bounds in perturb.items():
        if bounds is None and not resample:
            continue
        low, high = bounds or (0.0, 0.0)
        if not 0 <= low < high or (resample and low <= 0):
            raise ConfigurationError(
                f"Received perturb={{{name!r}: {bounds!r}}} with resample={resample!r}; expected a "
                "lower bound of at least 0 (above 0 to resample) and a higher one. Write "
                f"{{{name!r}: (1e-5, 1e-1)}}."
            )
    if not perturb or not 0 <= resample <= 1:
        raise ConfigurationError(
            f"Received perturb={dict(perturb)!r}, resample={resample!r}; expected at least one "
            "hyperparameter to change, and a probability. Write perturb={'lr': (1e-5, 1e-1)}."
        )
