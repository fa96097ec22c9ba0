"""Carries out what a scheduler asks for: on the host for the members, on the device for rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from boltax._step._state import variables_of
from boltax.errors import ConfigurationError
from boltax.tune._run import EMPTY, PopulationRun
from boltax.tune._saved import write_best
from boltax.tune._schedulers import Member, Overwrite, Replace, Request, Status, Stop
from boltax.tune._values import read_member


def carry_out(run: PopulationRun, requests: Sequence[Request]) -> None:
    """Carries out requests together: a source is copied as it was before all of them.

    Raises:
        ConfigurationError: for a request that cannot be carried out; then none is.
    """
    if not requests:
        return
    _check(run, requests)
    overwritten = {r.member: r for r in requests if isinstance(r, Overwrite)}
    replaced = {r.member: r for r in requests if isinstance(r, Replace)}
    for request in requests:
        if isinstance(request, Stop):
            _end(run, request.member, request.reason)
    if overwritten or replaced:
        _move(run, overwritten, replaced)


def _move(
    run: PopulationRun, overwritten: dict[int, Overwrite], replaced: dict[int, Replace]
) -> None:
    """New groups, with copies of sources and fresh members in the rows of those that go."""
    rows = list(range(len(run.occupants)))
    best_rows = list(rows)
    sources = [run.members[request.source] for request in overwritten.values()]
    before = {member.number: member for member in sources}
    for number, request in overwritten.items():
        rows[run.row_of(number)] = run.row_of(request.source)
        _overwrite(run, request, before[request.source])
    fresh: list[Any] = []
    first_fresh = len(run.states) * run.size
    for number, request in replaced.items():
        _end(run, number, request.reason)
        write_best(run, run.members[number])
        given = read_member(run.trainer, request.values, len(run.members))
        values = run.varied.complete(given.values, len(run.members))
        new = Member(number=len(run.members), seed=given.seed, values=values, replaces=number)
        run.members.append(new)
        row = run.row_of(number) if run.has_row(number) else _free_row(run, rows, best_rows)
        rows[row] = best_rows[row] = first_fresh + len(fresh)
        run.occupants[row] = new.number
        fresh.append(run.maker.fresh(new.seed, new.values))
    rngs = _rngs(run) if overwritten else None
    bests = [run.rows.copy(variables_of(state)) for state in fresh]
    size, devices = run.size, run.used
    run.best = run.rows.rearranged(run.best, size, best_rows, size, devices, fresh=bests)
    run.states = run.rows.rearranged(run.states, size, rows, size, devices, fresh=fresh)
    if rngs is not None:
        _keep_rngs(run, rngs, overwritten)
        for index, state in enumerate(run.states):
            run.states[index] = run.maker.with_values(state, _values(run, index), size)


def _overwrite(run: PopulationRun, request: Overwrite, source: Member) -> None:
    member = run.members[request.member]
    run.members[member.number] = replace(
        member,
        values={**source.values, **request.values},
        step=source.step,
        metrics=source.metrics,
        copied_from=(*member.copied_from, source.number),
    )


def _free_row(run: PopulationRun, rows: list[int], best_rows: list[int]) -> int:
    """A row for a fresh member whose predecessor has left: that of one that has ended, or new."""
    for row, number in enumerate(run.occupants):
        if number == EMPTY or not run.members[number].is_training:
            return row
    for held in (run.occupants, rows, best_rows):
        held.append(EMPTY)
    return len(run.occupants) - 1


def _rngs(run: PopulationRun) -> list[Any]:
    """A copy of the random keys of all groups."""
    return [run.rows.copy(state.rng) for state in run.states]


def _keep_rngs(run: PopulationRun, rngs: list[Any], overwritten: dict[int, Overwrite]) -> None:
    """Gives the members that were overwritten their own random keys back."""
    for index, rng in enumerate(rngs):
        are_own = [number in overwritten for number in run.group(index)]
        if any(are_own):
            state = run.states[index]
            run.states[index] = state.replace(
                rng=run.rows.chosen(are_own, rng, state.rng, run.size)
            )


def _values(run: PopulationRun, index: int) -> list[dict[str, float]]:
    numbers = [number if number != EMPTY else run.occupants[0] for number in run.group(index)]
    return [run.varied.complete(run.members[number].values, number) for number in numbers]


def _end(run: PopulationRun, number: int, reason: str) -> None:
    member = run.members[number]
    if member.is_training:
        run.members[number] = replace(member, status=Status.STOPPED, reason=reason)


def _check(run: PopulationRun, requests: Sequence[Request]) -> None:
    named: set[int] = set()
    for request in requests:
        _check_number(run, request, request.member)
        if request.member in named:
            raise _wrong(run, request, "one request for each member at a time")
        named.add(request.member)
        if isinstance(request, Replace):
            given = read_member(run.trainer, request.values, len(run.members))
            run.varied.complete(given.values, len(run.members))
        elif not run.members[request.member].is_training:
            raise _wrong(run, request, "a member that still trains, or Replace")
        if isinstance(request, Overwrite):
            _check_number(run, request, request.source)
            if not run.has_row(request.source):
                raise _wrong(run, request, "a source that is still on the device")
            values = {**run.members[request.source].values, **request.values}
            given = read_member(run.trainer, values, request.member)
            run.varied.complete(given.values, request.member)


def _check_number(run: PopulationRun, request: Request, number: int) -> None:
    if type(number) is not int or not 0 <= number < len(run.members):
        raise _wrong(run, request, f"the number of a member, from 0 to {len(run.members) - 1}")


def _wrong(run: PopulationRun, request: Request, expected: str) -> ConfigurationError:
    training = ", ".join(str(member.number) for member in run.training)
    return ConfigurationError(
        f"Received {request} from {type(run.scheduler).__name__}; expected {expected}. Members "
        f"that train: {training or 'none'}."
    )
