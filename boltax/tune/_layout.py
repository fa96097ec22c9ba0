"""How many members go through one program: chosen by timing the candidates on a real batch.

Members in turn, each with the step of a single run, are the first candidate, so a population is
never slower than its members one after the other. Groups of 4, 16, 64 ... members follow, as long
as each is faster than the one before. All are timed on copies of the states, before the first step
of the run: the choice is part of the run from then on, and a resumed run does not choose again.
"""

import math
import time
from typing import Any

import jax
import numpy as np

from boltax._bodies import Training
from boltax._chunks import Chunk, Mode, Plan, Rows
from boltax._fused import MOST_STEPS, FusedStep
from boltax._steps import Steps
from boltax.tune._run import Layout, PopulationRun

GAIN = 1.05
"""A larger group must be faster by this factor."""
CLEAR = 1.5
"""A larger group that is slower by this factor ends the search; else the next one is tried too."""
PAYS_FROM = 10.0
"""Compiling for a larger group may take this part of the time that is left, and no more."""
ROUNDS = 8
"""How often two candidates are timed, in turn; the best time of each counts."""
WINDOW = 0.02
"""Seconds that a timing takes at least, unless one dispatch is longer."""

LONGEST = 60.0
"""Seconds after which the way of sending off steps is taken as it is by then."""


def decide(run: PopulationRun, chunk: Chunk) -> Chunk:
    """Chooses the size of groups, and groups the states accordingly.

    Returns:
        The chunk in the form in which the steps of the groups take it.
    """
    layout = _measured(run, chunk)
    group(run, layout)
    how = "in turn" if layout.size == 1 else f"{layout.size} in one program"
    run.trainer.progress.note(
        f"Population: members {how}, {1e3 * layout.seconds / layout.size:.3g} ms a member's step"
    )

    step = run.steps.train
    chosen = step.chosen if isinstance(step, FusedStep) else None
    if chosen is None or chosen.mode is not Mode.LOOP:
        return chunk
    return _repeated(chunk, Plan(Mode.LOOP, 1, chosen.capacity), 1)


def group(run: PopulationRun, layout: Layout) -> None:
    """Groups the rows as they are, so that this layout holds."""
    rows, size = range(len(run.occupants)), run.size
    run.states = run.rows.rearranged(run.states, size, rows, layout.size)
    run.best = run.rows.rearranged(run.best, size, rows, layout.size)
    run.layout = layout


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
    new = smaller or layout
    run.states = run.rows.rearranged(run.states, layout.size, kept, new.size)
    run.best = run.rows.rearranged(run.best, layout.size, kept, new.size)
    run.occupants, run.layout = [run.occupants[row] for row in kept], new


def _smaller(run: PopulationRun, layout: Layout, number: int) -> Layout | None:
    """A layout for the last few members, where compiling it costs less than it saves."""
    size = 2 ** math.ceil(math.log2(number))
    if number > layout.size or size > layout.size // 2 or not layout.seconds:
        return None
    batches = run.source.num_batches
    steps = run.passes_left * (batches or 0)
    saved = steps * layout.seconds * (1 - size / layout.size)
    if saved < 2 * layout.compile_seconds:
        return None
    return Layout(size, layout.seconds * size / layout.size, layout.compile_seconds)


_FULL = "RESOURCE_EXHAUSTED"


class _Candidate:
    """A way to lay out members, with copies of states to time it on.

    Groups send off their steps as the single member does, which was timed for it.
    """

    def __init__(
        self, run: PopulationRun, chunk: Chunk, size: int, chosen: Plan | None = None
    ) -> None:
        number = len(run.occupants)
        self.groups = math.ceil(number / size)
        self.size = size
        self._steps: Steps = run.make_steps(size)
        self._chunk = chunk
        rows = [row % number for row in range(size)]
        if size == 1:
            state = run.rows.copy(run.states[0])
        else:
            state = run.rows.rearranged(run.states, 1, rows, size)[0]
        self._carry = Training(state, self._steps.empty_train(state, chunk, None))
        batches = run.source.num_batches
        self._distance = MOST_STEPS if batches is None else batches
        self._remaining = None if batches is None else batches * run.num_epochs * self.groups
        self.seconds = math.inf
        step = self._steps.train
        if chosen is not None and isinstance(step, FusedStep):
            step.choose(chosen)
        self._settle()

    def time(self) -> None:
        """Times some steps; the best time so far counts."""
        jax.block_until_ready(self._carry)
        began, done = time.perf_counter(), 0
        while True:
            done += self._send(self._steps.train.plan(self._distance, self._remaining))
            if time.perf_counter() - began > WINDOW or done >= 2 * self._distance:
                break
        jax.block_until_ready(self._carry)
        self.seconds = min(self.seconds, (time.perf_counter() - began) / done)

    @property
    def per_member(self) -> float:
        """Seconds of a step of one member; rows that fill up the last group count for nothing."""
        return self.seconds * self.groups

    @property
    def layout(self) -> Layout:
        """The layout, with what was measured."""
        return Layout(self.size, self.seconds, self.compile_seconds)

    @property
    def compile_seconds(self) -> float:
        """What compiling a step took, or finding it in the cache."""
        step = self._steps.train
        return step.compile_seconds if isinstance(step, FusedStep) else 0.0

    @property
    def chosen(self) -> Plan | None:
        """How its steps are sent off; None while that is not decided."""
        step = self._steps.train
        return step.chosen if isinstance(step, FusedStep) else None

    def _settle(self) -> None:
        """Runs until the step has chosen how it is sent off."""
        step, began = self._steps.train, time.perf_counter()
        self._send(step.plan(self._distance, self._remaining))
        while isinstance(step, FusedStep) and step.chosen is None and self._distance > 1:
            if time.perf_counter() - began > LONGEST:
                break
            plan = step.plan(self._distance, self._remaining)
            if plan.window is None and step.chosen is None:
                time.sleep(0.002)  # it waits for a program that is being compiled
            else:
                self._send(plan)

    def _send(self, plan: Plan) -> int:
        chunk = _repeated(self._chunk, plan, self._distance)
        self._carry, _ = self._steps.train((), self._carry, chunk)
        return chunk.steps


def _measured(run: PopulationRun, chunk: Chunk) -> Layout:
    """The fastest layout, by timing on copies of the states."""
    number = len(run.occupants)
    best = _Candidate(run, chunk, 1)
    best.time()
    misses = 0
    for size in _sizes(number):
        if not _pays(run, best):
            break
        try:
            candidate = _Candidate(run, chunk, size, best.chosen)
        except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
            # an operation without a rule for one more axis, or more than the memory holds
            if isinstance(error, jax.errors.JaxRuntimeError) and _FULL not in str(error):
                raise
            run.trainer.progress.note(
                f"Population: no {size} members in one program: {str(error).splitlines()[0]}"
            )
            break
        for _ in range(ROUNDS):
            best.time()
            candidate.time()
        if best.per_member >= GAIN * candidate.per_member:
            best = candidate
            continue
        misses += 1
        if misses > 1 or candidate.per_member > CLEAR * best.per_member:
            break
    return best.layout


def _sizes(number: int) -> list[int]:
    """Sizes of groups to try, each of equal parts of all members."""
    sizes = [4**power for power in range(1, 6) if 4**power < number]
    equal = [math.ceil(number / math.ceil(number / size)) for size in [*sizes, number]]
    return [size for size in dict.fromkeys(equal) if size > 1]


def _pays(run: PopulationRun, best: _Candidate) -> bool:
    """Whether so much time is left that a larger group may win back its compilation."""
    batches = run.source.num_batches
    if batches is None:
        return True
    left = batches * run.num_epochs * best.per_member
    return left > PAYS_FROM * best.compile_seconds


def _repeated(chunk: Chunk, plan: Plan, distance: int) -> Chunk:
    """A chunk of the planned form in which the one batch of `chunk` stands several times."""
    steps = min(plan.steps, max(distance, 1))
    feed: Any = chunk.feed
    if plan.mode is Mode.UNROLLED:
        feed = (feed,) * steps
    elif plan.mode is Mode.LOOP and not isinstance(feed, Rows):
        feed = jax.tree.map(lambda leaf: _stack(leaf, plan.capacity), feed)
    return Chunk(plan, feed, chunk.cursors * steps, chunk.size)


def _stack(leaf: Any, capacity: int) -> Any:
    """A batch several times, on the host where it is there, as `prefetch_to_device` has it."""
    return (np if isinstance(leaf, np.ndarray) else jax.numpy).stack([leaf] * capacity)
