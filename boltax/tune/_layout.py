"""How members lie on the devices: as the user says, or as measured; fewer groups as members end."""

import math
from collections.abc import Sequence
from dataclasses import replace

from boltax._base._chunks import Chunk, Mode, Plan
from boltax._step._fused import FusedStep
from boltax.tune._layouts import Layout
from boltax.tune._measure import described, lanes_of, measured, repeated, size_of
from boltax.tune._members import Members


def only_layout(members: Members) -> Layout | None:
    """The layout of a population that leaves nothing to be measured; None of the others."""
    number = len(members.occupants)
    if number == 1:
        return Layout(1)
    devices = len(members.places)
    if members.wanted is None or (devices > 1 and not members.is_spread):
        return None
    size = size_of(number, devices, members.wanted)
    return Layout(size, devices, lanes=lanes_of(members, devices))


def decide(members: Members, chunk: Chunk) -> Chunk:
    """Chooses how members lie by measuring it, and groups the states accordingly.

    Returns:
        The chunk in the form in which the steps of the groups take it.
    """
    layout = measured(members, chunk)
    group(members, layout)
    per_member = layout.seconds / layout.size / layout.places
    members.parts.progress.note(
        f"Population: {described(layout, members.where)}, {1e3 * per_member:.3g} ms a member's step"
    )

    step = members.steps.train
    chosen = step.chosen if isinstance(step, FusedStep) else None
    if chosen is None or chosen.mode is not Mode.LOOP:
        return chunk
    return repeated(chunk, Plan(Mode.LOOP, 1, chosen.capacity), 1)


def group(members: Members, layout: Layout) -> None:
    """Groups the rows as they are, so that this layout holds."""
    _lay_out(members, range(len(members.occupants)), layout)


def shrink(members: Members) -> None:
    """Gives up the rows of members that have ended, where that saves a group or makes one smaller.

    What decides are numbers of members, and times that are stored with the run: a resumed run
    decides the same.
    """
    layout, kept = members.layout, [members.row_of(member.number) for member in members.training]
    if layout is None or not kept:
        return
    smaller = _smaller(members, layout, len(kept))
    if smaller is None and math.ceil(len(kept) / layout.size) >= len(members.states):
        return
    _lay_out(members, kept, smaller or layout)
    members.occupants = [members.occupants[row] for row in kept]


def _lay_out(members: Members, rows: Sequence[int], layout: Layout) -> None:
    before, members.layout = members.size, layout
    members.states = members.rows.rearranged(
        members.states, before, rows, members.size, members.used
    )
    members.best = members.rows.rearranged(members.best, before, rows, members.size, members.used)


def _smaller(members: Members, layout: Layout, number: int) -> Layout | None:
    """A layout for the last few members, where compiling it costs less than it saves."""
    size = 2 ** math.ceil(math.log2(math.ceil(number / layout.places)))
    if members.wanted is not None or size > layout.size // 2 or not layout.seconds:
        return None
    batches = members.run.train_source.num_batches
    steps = members.passes_left * (batches or 0)
    saved = steps * layout.seconds * (1 - size / layout.size)
    if saved < 2 * layout.compile_seconds:
        return None
    return replace(layout, size=size, seconds=layout.seconds * size / layout.size)
