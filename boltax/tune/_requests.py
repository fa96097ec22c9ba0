"""Carries out what a scheduler asks for: on the host for the members, on the device for rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from boltax._base._whole import is_whole
from boltax._step._state import variables_of
from boltax.errors import ConfigurationError
from boltax.tune._layouts import EMPTY
from boltax.tune._member_folders import write_best
from boltax.tune._members import Members
from boltax.tune._schedulers import Member, Overwrite, Replace, Request, Status, Stop
from boltax.tune._values import read_member


def carry_out(members: Members, requests: Sequence[Request]) -> None:
    """Carries out requests together: a source is copied as it was before all of them.

    Raises:
        ConfigurationError: for a request that cannot be carried out; then none is.
    """
    if not requests:
        return
    _check(members, requests)
    overwritten = {r.member: r for r in requests if isinstance(r, Overwrite)}
    replaced = {r.member: r for r in requests if isinstance(r, Replace)}
    for request in requests:
        if isinstance(request, Stop):
            _end(members, request.member, request.reason)
    if overwritten or replaced:
        _move(members, overwritten, replaced)


def _move(
    members: Members, overwritten: dict[int, Overwrite], replaced: dict[int, Replace]
) -> None:
    """New groups, with copies of sources and fresh members in the rows of those that go."""
    rows = list(range(len(members.occupants)))
    best_rows = list(rows)
    sources = [members.members[request.source] for request in overwritten.values()]
    before = {member.number: member for member in sources}
    for number, request in overwritten.items():
        rows[members.row_of(number)] = members.row_of(request.source)
        _overwrite(members, request, before[request.source])
    fresh: list[Any] = []
    first_fresh = len(members.states) * members.size
    for number, request in replaced.items():
        _end(members, number, request.reason)
        write_best(members, members.members[number])
        given = read_member(members.hooks, request.values, len(members.members))
        values = members.varied.complete(given.values, len(members.members))
        new = Member(number=len(members.members), seed=given.seed, values=values, replaces=number)
        members.members.append(new)
        row = (
            members.row_of(number)
            if members.has_row(number)
            else _free_row(members, rows, best_rows)
        )
        rows[row] = best_rows[row] = first_fresh + len(fresh)
        members.occupants[row] = new.number
        fresh.append(members.maker.fresh(new.seed, new.values))
    rngs = _rngs(members) if overwritten else None
    bests = [members.rows.copy(variables_of(state)) for state in fresh]
    size, places = members.size, members.used
    members.best = members.rows.rearranged(members.best, size, best_rows, size, places, fresh=bests)
    members.states = members.rows.rearranged(members.states, size, rows, size, places, fresh=fresh)
    if rngs is not None:
        _keep_rngs(members, rngs, overwritten)
        for index, state in enumerate(members.states):
            members.states[index] = members.maker.with_values(state, _values(members, index), size)


def _overwrite(members: Members, request: Overwrite, source: Member) -> None:
    member = members.members[request.member]
    members.members[member.number] = replace(
        member,
        values={**source.values, **request.values},
        step=source.step,
        metrics=source.metrics,
        copied_from=(*member.copied_from, source.number),
    )


def _free_row(members: Members, rows: list[int], best_rows: list[int]) -> int:
    """A row for a fresh member whose predecessor has left: that of one that has ended, or new."""
    for row, number in enumerate(members.occupants):
        if number == EMPTY or not members.members[number].is_training:
            return row
    for held in (members.occupants, rows, best_rows):
        held.append(EMPTY)
    return len(members.occupants) - 1


def _rngs(members: Members) -> list[Any]:
    """A copy of the random keys of all groups."""
    return [members.rows.copy(state.rng) for state in members.states]


def _keep_rngs(members: Members, rngs: list[Any], overwritten: dict[int, Overwrite]) -> None:
    """Gives the members that were overwritten their own random keys back."""
    for index, rng in enumerate(rngs):
        are_own = [number in overwritten for number in members.group(index)]
        if any(are_own):
            state = members.states[index]
            members.states[index] = state.replace(
                rng=members.rows.chosen(are_own, rng, state.rng, members.size)
            )


def _values(members: Members, index: int) -> list[dict[str, float]]:
    numbers = [
        number if number != EMPTY else members.occupants[0] for number in members.group(index)
    ]
    return [members.varied.complete(members.members[number].values, number) for number in numbers]


def _end(members: Members, number: int, reason: str) -> None:
    member = members.members[number]
    if member.is_training:
        members.members[number] = replace(member, status=Status.STOPPED, reason=reason)


def _check(members: Members, requests: Sequence[Request]) -> None:
    named: set[int] = set()
    for request in requests:
        _check_number(members, request, request.member)
        if request.member in named:
            raise _wrong(members, request, "one request for each member at a time")
        named.add(request.member)
        if isinstance(request, Replace):
            given = read_member(members.hooks, request.values, len(members.members))
            members.varied.complete(given.values, len(members.members))
        elif not members.members[request.member].is_training:
            raise _wrong(members, request, "a member that still trains, or Replace")
        if isinstance(request, Overwrite):
            _check_number(members, request, request.source)
            if not members.has_row(request.source):
                raise _wrong(members, request, "a source that is still on the device")
            values = {**members.members[request.source].values, **request.values}
            given = read_member(members.hooks, values, request.member)
            members.varied.complete(given.values, request.member)


def _check_number(members: Members, request: Request, number: int) -> None:
    if not is_whole(number, 0) or number >= len(members.members):
        raise _wrong(
            members, request, f"the number of a member, from 0 to {len(members.members) - 1}"
        )


def _wrong(members: Members, request: Request, expected: str) -> ConfigurationError:
    training = ", ".join(str(member.number) for member in members.training)
    return ConfigurationError(
        f"Received {request} from {type(members.scheduler).__name__}; expected {expected}. Members "
        f"that train: {training or 'none'}."
    )
