"""What a resume checkpoint of a population holds beside the counters: states, and who they are.

checkpoints/resume/<step>/   states and best variables of all groups, running metrics; members,
in which row each lies, the scheduler
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax

from boltax._base._types import ScalarMetrics
from boltax._loop._accumulators import Accumulated
from boltax._loop._derived import Derive, computed
from boltax._loop._resume import readable
from boltax._loop._saving import state_tree
from boltax._loop._trainees import Saved
from boltax._step._state import variables_of
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.errors import CheckpointError, noting
from boltax.metrics._accumulate import Metrics, merge
from boltax.parallel._places import placement_at, with_places
from boltax.tune._lanes import most_lanes
from boltax.tune._layouts import EMPTY, Layout
from boltax.tune._member_folders import table_of, write_table
from boltax.tune._members import Members
from boltax.tune._schedulers import Member, Status

_log = logging.getLogger("boltax")

Counted = tuple[int, int, ScalarMetrics]
"""Batches of a member in an epoch, those of them that were left out, and its means."""


def content(members: Members) -> Saved:
    """Copies of the arrays, and who the members are, as they are now."""
    states = [state_tree(members.rows.copy(state)) for state in members.states]
    best = [members.rows.copy(variables) for variables in members.best]
    layout = members.layout or Layout(1)
    with noting(f"scheduler {type(members.scheduler).__name__}.state_dict"):
        scheduler = dict(members.scheduler.state_dict())
    extra = {
        "population": 2,
        "layout": asdict(layout),
        "occupants": list(members.occupants),
        "members": [_plain_member(member) for member in members.members],
        "in_pass": list(members.in_pass),
        "given": members.given,
        "written": sorted(members.written),
        "scheduler": scheduler,
        "asked": list(members.asked),
        "place": _recorded(members),
    }
    late = partial(
        _late, members.parts.derive, list(members.occupants), members.size, dict(members.counted)
    )
    done = partial(write_table, table_of(members), members.parts.folder)
    return Saved({"states": states, "best": best}, extra, late, done)


def _late(
    derive: Derive,
    occupants: list[int],
    size: int,
    known: dict[str, Any],
    interval: Accumulated,
    epoch: Accumulated,
) -> dict[str, Any]:
    """What members have counted of the running epoch; worked out in the background."""
    parts = [
        _members_of(occupants, size, metrics)
        for metrics in (epoch, interval)
        if metrics is not None and isinstance(metrics[0], Metrics)
    ]
    if not parts:
        return {"counted": known}
    whole = parts[0]
    for later in parts[1:]:
        whole = {number: merge(whole[number], later[number]) for number in later}
    return {
        "counted": {
            str(number): [batches, left_out, plain_metrics(metrics)]
            for number, (batches, left_out, metrics) in counted(whole, derive).items()
        }
    }


def _members_of(occupants: list[int], size: int, metrics: Accumulated) -> dict[int, Metrics]:
    host: Any = jax.device_get(metrics)
    each = (
        host
        if size == 1
        else [
            jax.tree.map(lambda leaf, place=place: leaf[place], group)
            for group in host
            for place in range(size)
        ]
    )
    return {n: own for n, own in zip(occupants, each, strict=False) if n != EMPTY}


def counted(metrics: Mapping[int, Metrics], derive: Derive = None) -> dict[int, Counted]:
    """What members have counted, from their accumulated metrics."""
    return {
        number: (int(own.batches), int(own.left_out), computed(own, "train/", derive))
        for number, own in metrics.items()
    }


def find(members: Members, checkpoints: ResumeCheckpoints, step: int | None) -> Resume | None:
    """Reads a resume checkpoint of the same members.

    Raises:
        CheckpointError: when all are damaged, or of other members.
    """
    point = checkpoints.peek(step)
    if point is None:
        return None
    with readable(point):
        progress = _as_of_now(point.progress, members.run.limits.total_steps)
        _check_members(members, progress["given"])
        _warn_of_place(members, progress.get("place"))
        layout = _layout(members, progress)
        form = members.maker.form()
        one = {"states": state_tree(form), "best": variables_of(form)}
        places = members.places[: layout.devices]
        axes = (layout.size,) if layout.size > 1 else ()
        number = -(-len(progress["occupants"]) // layout.size)
        template: dict[str, Any] = {
            name: [with_places(tree, places[index % len(places)], axes) for index in range(number)]
            for name, tree in one.items()
        }
        is_old = point.progress["population"] == 1
        template |= {"metrics": ...} if is_old else {"interval": ..., "epoch": ...}
        found = checkpoints.restore(template, point.step)
        if found is None:
            return None
        arrays = {**found.arrays}
        if is_old:
            arrays |= {"interval": arrays.pop("metrics"), "epoch": None}
        return Resume(arrays, progress, found.step, found.folder)


def take(members: Members, found: Resume) -> None:
    """Goes on with the members of a checkpoint, in their rows."""
    progress, form = found.progress, members.maker.form()
    members.layout = _layout(members, progress)
    members.members = [_read_member(stored) for stored in progress["members"]]
    # The state of one member has the static parts; they belong to no array.
    tx = members.maker.optimizer.optimizer.tx
    members.states = [form.replace(**state, tx=tx) for state in found.arrays["states"]]
    members.best = list(found.arrays["best"])
    members.occupants = [int(number) for number in progress["occupants"]]
    members.in_pass = tuple(int(number) for number in progress["in_pass"])
    members.written = {int(number) for number in progress["written"]}
    is_ended = progress["stage"] == "complete"
    older = int(progress["epoch"]) - (not is_ended), 0  # what older versions knew
    epoch, step = progress.get("asked", older)
    members.asked = int(epoch), int(step)
    members.counted = {
        number: [int(batches), int(left_out), read_metrics(metrics)]
        for number, (batches, left_out, metrics) in progress["counted"].items()
    }
    members.fresh, members.is_whole = [], True
    with noting(f"scheduler {type(members.scheduler).__name__}.load_state_dict"):
        members.scheduler.load_state_dict(progress["scheduler"])


def _as_of_now(progress: dict[str, Any], total_steps: int | None) -> dict[str, Any]:
    """The progress of a checkpoint; one that an older version wrote in the form of this one.

    Args:
        progress: as it was read.
        total_steps: of the run that goes on; older versions stored neither them nor the devices.
    """
    if progress["population"] != 1:
        return progress
    trained = [m["number"] for m in progress["members"] if m["status"] == Status.TRAINING.value]
    older: dict[str, Any] = {
        "stage": "complete" if progress["is_trained"] else "train",
        "record": {},
        "row": {},
        "logged": {},
        "best": None,
        "best_steps": [],
        "stop_reason": None,
        "seconds_of_epoch": 0.0,
        "total_steps": total_steps,
        "schedule_steps": None,
        "devices": jax.device_count(),
        "in_pass": trained,
        "counted": {},
    }
    return {**older, **progress}


def _layout(members: Members, progress: Mapping[str, Any]) -> Layout:
    """How members lie: as saved, on the places of now."""
    layout = Layout(**progress["layout"])
    if members.is_spread or layout.devices > 1:  # the groups stay, and so do the numbers
        layout = replace(layout, devices=len(members.places))
    lanes = min(layout.lanes, most_lanes(members.places[: layout.devices]))
    return replace(layout, lanes=lanes)


def _plain_member(member: Member) -> dict[str, Any]:
    return {
        "number": member.number,
        "seed": member.seed,
        "values": dict(member.values),
        "epoch": member.epoch,
        "step": member.step,
        "metrics": plain_metrics(member.metrics),
        "best": None if member.best is None else plain_metrics(member.best),
        "status": member.status.value,
        "reason": member.reason,
        "replaces": member.replaces,
        "copied_from": list(member.copied_from),
    }


def _read_member(stored: Mapping[str, Any]) -> Member:
    values: dict[str, Any] = dict(stored)
    values["metrics"] = read_metrics(stored["metrics"])
    values["best"] = None if stored["best"] is None else read_metrics(stored["best"])
    values["status"] = Status(stored["status"])
    values["copied_from"] = tuple(stored["copied_from"])
    return Member(**values)


def _check_members(members: Members, given: list[Any]) -> None:
    if given != members.given:
        pairs = enumerate(zip(given, members.given, strict=False))
        changed = [number for number, (a, b) in pairs if a != b]
        raise CheckpointError(
            f"Received a population of {len(members.given)} members for a folder that holds one of "
            f"{len(given)}"
            + (f", and others from member {changed[0]} on" if changed else "")
            + "; expected the same members, to go on with them. Give the members that the "
            "population was started with, or a trainer with a folder of its own."
        )


def _recorded(members: Members) -> dict[str, Any] | None:
    """How a member lies on its place; None on a device of its own."""
    return placement_at(members.places[0]).recorded()


def _warn_of_place(members: Members, saved: dict[str, Any] | None) -> None:
    """Says that members lie on other numbers of devices than they were saved on."""
    now = _recorded(members)
    before, after = (None if each is None else each["mesh"] for each in (saved, now))
    if before != after:
        _log.warning(
            "The members go on with the mesh %s each, and were saved with %s. The same examples "
            "follow in the same order, and the last bits of sums may differ.",
            after or "of one device",
            before or "of one device",
        )
