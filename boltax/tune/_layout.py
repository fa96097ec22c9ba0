"""How members lie on the devices: as the user says, or as measured; fewer groups as members end."""

import math
from collections.abc import Sequence
from dataclasses import replace

from boltax._base._chunks import Chunk, Mode, Plan
from boltax._step._fused import FusedStep
from boltax.tune._measure import described, lanes_of, measured, repeated, size_of
from boltax.tune._run import Layout, PopulationRun


def only_layout(run: PopulationRun) -> Layout | None:
    """The layout of a population that leaves nothing to be measured; None of the others."""
    number = len(run.occupants)
    if number == 1:
        return Layout(1)
    devices = len(run.devices)
    if run.wanted is None or (devices > 1 and not run.is_spread):
        return None
    size = size_of(number, devices, run.wanted)
    return Layout(size, devices, lanes=lanes_of(run, devices))


def decide(run: PopulationRun, chunk: Chunk) -> Chunk:
    """Chooses how members lie by measuring it, and groups the states accordingly.

    Returns:
        The chunk in the form in which the steps of the groups take it.
    """
    layout = measured(run, chunk)
    group(run, layout)
    per_member = layout.seconds / layout.size / layout.places
    run.trainer._made.progress.note(
        f"Population: {described(layout)}, {1e3 * per_member:.3g} ms a member's step"
    )

    step = run.steps.train
    chosen = step.chosen if isinstance(step, FusedStep) else None
    if chosen is None or chosen.mode is not Mode.LOOP:
        return chunk
    return repeated(chunk, Plan(Mode.LOOP, 1, chosen.capacity), 1)


def group(run: PopulationRun, layout: Layout) -> None:
    """Groups the rows as they are, so that this layout holds."""
    _lay_out(run, range(len(run.occupants)), layout)


def shrink(run: PopulationRun) -> None:
    """Gives up the rows of members that have ended, where that saves a group or makes one smaller.

    What decides are numbers of members, and times that are stored with the run: a resumed run
    decides the same.
    """
    layout, kept = run.layout, [run.row_of(member.number) for member in run.training]
    if layout is None or not kept:
        return
    smaller = _smaller(run, layout, len(kept))
    if smaller is None and math.ceil(len(kept) / layout.size) >= len(run.states):
        return
    _lay_out(run, kept, smaller or layout)
    run.occupants = [run.occupants[row] for row in kept]


def _lay_out(run: PopulationRun, rows: Sequence[int], layout: Layout) -> None:
    before, run.layout = run.size, layout
    run.states = run.rows.rearranged(run.states, before, rows, run.size, run.used)
    run.best = run.rows.rearranged(run.best, before, rows, run.size, run.used)


def _smaller(run: PopulationRun, layout: Layout, number: int) -> Layout | None:
    """A layout for the last few members, where compiling it costs less than it saves."""
    size = 2 ** math.ceil(math.log2(math.ceil(number / layout.places)))
    if run.wanted is not None or size > layout.size // 2 or not layout.seconds:
        return None
    batches = run.source.num_batches
    steps = run.passes_left * (batches or 0)
    saved = steps * layout.seconds * (1 - size / layout.size)
    if saved < 2 * layout.compile_seconds:
        return None
    return replace(layout, size=size, seconds=layout.seconds * size / layout.size)
