"""The validation of all members: hooks and optimizers are told, the best kept on the device.

The evaluation itself is that of a single run, over all groups side by side.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from boltax._base._evaluation import Evaluation, prefix_of
from boltax._base._types import ScalarMetrics
from boltax._loop._derived import computed as with_derived
from boltax._loop._evaluate import draw, evaluate_states, validations_left
from boltax._loop._state_watch import ask, listed
from boltax._loop._validate import computed
from boltax._step._ema import evaluated
from boltax._step._state import evaluations_of, variables_of
from boltax.data._source import Source
from boltax.errors import noting
from boltax.metrics._accumulate import to_host
from boltax.optim._plateau import check_metrics, next_evaluations
from boltax.parallel._devices import on_device
from boltax.parallel._placement import Placement
from boltax.tune._layouts import EMPTY
from boltax.tune._member_records import record_epoch
from boltax.tune._members import Members
from boltax.tune._requests import carry_out
from boltax.tune._schedulers import Status, as_requests

_log = logging.getLogger("boltax")


def validate_members(members: Members, val_loader: Any) -> None:
    """Validates all members, and carries out what the scheduler asks for then."""
    run = members.run
    found: dict[int, ScalarMetrics] = {}
    # the devices look at the states beside the evaluation
    asked = [ask(members.steps_of(index), state) for index, state in enumerate(members.states)]
    is_new = not run.counters.is_validated  # else after the last step there was one already
    if val_loader is not None and is_new:
        for name in run.validations.due:
            evaluation, prefix = run.validations.evaluations[name], prefix_of("val", name)
            with run.ledger.spent("evaluation"):
                own = (
                    _evaluated(members, run.source(evaluation.loader, "val_loader"), prefix)
                    if evaluation.function is None
                    else _computed(members, evaluation, prefix)
                )
            found = {number: {**found.get(number, {}), **new} for number, new in own.items()}
        found = _derived(members, found, val_loader)
    # from here on members change one after the other: no checkpoint until the end of the epoch
    members.is_whole = False
    for number, metrics in found.items():
        member = members.members[number]
        members.members[number] = replace(member, metrics={**member.metrics, **metrics})
    _end_nonfinite(members, asked)
    if found:
        _tell_optimizers(members, set().union(*found.values()))
    if is_new and _is_comparable(members, found):
        _keep_best(members)
    _finish(members)
    # before the scheduler, which may move members to other rows
    if is_new:
        record_epoch(members)
    if not run.step or not _has_followed(members):
        return  # nothing is trained that it could decide on, or its evaluation comes later
    where = f"epoch {run.epoch}"
    with noting(f"scheduler {type(members.scheduler).__name__}", where):
        answer = members.scheduler.on_validation_epoch_end(members.view())
        requests = as_requests(answer, members.scheduler)
    members.asked = run.counters.epochs_done, run.step
    carry_out(members, requests)


def _end_nonfinite(members: Members, asked: list[dict[str, Any]]) -> None:
    """Ends the members with variables that became infinite or NaN, or tells of them."""
    bad: dict[int, list[str]] = {}
    for index, flags in enumerate(jax.device_get(asked)):
        for place, number in enumerate(members.group(index)):
            names = [name for name, flag in flags.items() if not np.atleast_1d(flag)[place]]
            if names and number != EMPTY and members.members[number].is_training:
                bad[number] = names
    if not bad:
        return
    at_start = jax.device_get(ask(members.parts.steps, members.live.state))
    for number, all_names in bad.items():
        if not (names := [name for name in all_names if at_start.get(name, True)]):
            continue
        member, reason = members.members[number], f"not finite any more: {listed(names)}"
        if members.parts.loop.on_nonfinite == "stop":
            members.members[number] = replace(member, status=Status.DIVERGED, reason=reason)
        else:
            _log.warning("Member %d at epoch %d: %s", number, member.epoch, reason)


def _evaluated(members: Members, source: Source, prefix: str) -> dict[int, ScalarMetrics]:
    """The exact metrics of each member that trains over the validation data."""
    loop, run, states = members.parts.loop, members.run, members.states
    chunks = draw(
        members.steps,
        source,
        limit=loop.limit_val_batches,
        prefetch=loop.prefetch,
        passes=validations_left(run),
        members=len(states),
    )
    each = [evaluated(state, members.root_keys(index)) for index, state in enumerate(states)]
    metrics = evaluate_states(members, each, chunks, desc="Validation", poll=run.signals.poll)
    return {
        number: with_derived(own, prefix, members.parts.derive)
        for number, own in members.by_member(metrics).items()
        if members.members[number].is_training
    }


def _derived(
    members: Members, found: dict[int, ScalarMetrics], val_loader: Any
) -> dict[int, ScalarMetrics]:
    """The metrics with what the trainer's hook adds for each member, which finds its state."""
    hooks, run = members.hooks, members.run
    if not members.parts.overrides("on_validation_epoch_end"):
        return found
    derived = dict[int, ScalarMetrics]()
    for number in _each_in_place(members, found):
        metrics, epoch = found[number], members.members[number].epoch
        name = f"{members.parts.name}.on_validation_epoch_end of member {number}"
        with run.ledger.spent("hooks"), noting(name, run.where("val")):
            hooks.on_validation_epoch_end(epoch, metrics, val_loader)
        derived[number] = {name: to_host(value) for name, value in metrics.items()}
    return derived


def _computed(members: Members, evaluation: Evaluation, prefix: str) -> dict[int, ScalarMetrics]:
    """The metrics that a function of the user's gives for each member that trains."""
    numbers = [member.number for member in members.training]
    return {
        number: computed(evaluation, members.hooks, prefix, f"member {number}")
        for number in _each_in_place(members, numbers)
    }


def _each_in_place(members: Members, numbers: Iterable[int]) -> Iterator[int]:
    """The members one after the other, while the trainer has the state of each."""
    own = members.live.state
    try:
        for number in numbers:
            row = members.row_of(number)
            state = members.rows.row(members.states, members.size, row)
            if isinstance(place := members.places[0], Placement):
                state = on_device(state, place.device)  # the trainer's own steps are of one device
            members.live.state = state
            yield number
    finally:
        members.live.state = own


def _tell_optimizers(members: Members, names: Collection[str]) -> None:
    """Puts what the optimizer of each member follows of its own validation into its state."""
    for index, state in enumerate(members.states):
        if (before := evaluations_of(state)) is None:
            return
        if not members.run.validations.has_all(before.metrics, names):
            return
        group = [members.members[n] if n != EMPTY else None for n in members.group(index)]
        followed = {name: np.full(len(group), np.nan) for name in before.metrics}
        for row, member in enumerate(group):
            if member is None or not member.is_training:
                continue
            with noting(f"the validation of member {member.number}", f"epoch {member.epoch}"):
                check_metrics(before, member.metrics)
            for name, values in followed.items():
                values[row] = member.metrics[name]
        if members.size == 1:
            followed = {name: values[0] for name, values in followed.items()}
        told = next_evaluations(before, followed)
        members.states[index] = state.replace(evaluations=told)


def _has_followed(members: Members) -> bool:
    """Whether what the scheduler follows is there, or should be."""
    training = [member.metrics for member in members.training]
    names = members.followed[:1]
    return all(members.run.validations.has_all(names, metrics) for metrics in training)


def _is_comparable(members: Members, found: Mapping[int, ScalarMetrics]) -> bool:
    """Whether what tells the best model took part in this validation."""
    validations, monitor = members.run.validations, members.parts.monitor
    if validations.is_complete or monitor is None or monitor[0].startswith("train/"):
        return validations.is_main_due
    return any(monitor[0] in metrics for metrics in found.values())


def _keep_best(members: Members) -> None:
    """Keeps the variables of the members whose validation is the best they had."""
    better: set[int] = set()
    monitor = members.parts.monitor
    is_compared = members.is_validated or (monitor is not None and monitor[0].startswith("train/"))
    if not members.run.step and members.monitors[0][0].startswith("train/"):
        return  # nothing was trained that could be compared
    for member in members.training:
        old = None if member.best is None else dict(member.best)
        if is_compared and not members.hooks.is_new_model_better(dict(member.metrics), old):
            continue
        better.add(member.number)
        best = {**member.metrics, "epoch": member.epoch, "step": member.step}
        members.members[member.number] = replace(member, best=best)
        members.written.discard(member.number)
    for index, state in enumerate(members.states):
        are_new = [number in better for number in members.group(index)]
        if any(are_new):
            new, old = variables_of(evaluated(state)), members.best[index]
            members.best[index] = members.rows.chosen(are_new, new, old, members.size)


def _finish(members: Members) -> None:
    """Ends the members that have trained for all of their epochs, or all, where a limit says so."""
    reason = members.run.stop_reason
    for member in members.training:
        if member.epoch >= members.num_epochs or reason is not None:
            why = f"trained for {member.epoch} epochs"
            why = why if member.epoch >= members.num_epochs else str(reason)
            ended = replace(member, status=Status.FINISHED, reason=why)
            members.members[member.number] = ended
