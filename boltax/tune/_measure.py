"""The fastest layout of members, found by timing candidates on a real batch.

Members in turn on one device, each with the step of a single members, are the first candidate, so a
population is never slower than its members one after the other. The same on all devices is the
second, and on the one CPU side by side on its cores (see `Lanes`), which compiles nothing. Groups
of 4, 16, 64 ... members follow, as long as each is faster than the one before and fits into the
memory; where steps are so small that a single run sends them off as a loop, the second of them
comes first, for it is most often the best. All are timed on copies of the states, before the first
step of the run: the choice is part of the run from then on, and a resumed run does not choose
again.

What the search may cost, beside the compilation of the first candidate, which is the single step,
is a tenth of the time that the training would take in the best way known so far, or a quarter where
steps are that small, since groups of such are faster by more; of a population that a study fills
again and again, that of all the trials to come.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Chunk, Mode, Plan, Rows
from boltax._step._bodies import Training
from boltax._step._fused import MOST_STEPS, SINGLES, UNROLLED, FusedStep
from boltax.parallel._places import first_of, keeping, on_place, stacked
from boltax.tune._lanes import most_lanes
from boltax.tune._layouts import Layout
from boltax.tune._members import Members
from boltax.tune._memory import check_wanted, lack_of_memory

GAIN = 1.05
"""Another layout must be faster by this factor."""
CLEAR = 1.5
"""A factor that needs no second look; a larger group so much slower ends the search."""
SHARE, SHARE_OF_SMALL = 0.1, 0.25
"""The part of the time of training that the search may take; that of steps in a loop on a CPU."""
LONGEST = 60.0
"""Seconds that it may take when that time is unknown, and after which the way of sending off steps
is taken as it is by then."""
ROUNDS = 8
"""How often two candidates are timed, in turn; the best time of each counts."""
WINDOW = 0.02
"""Seconds that a timing takes, unless two steps are longer."""

_FULL = "RESOURCE_EXHAUSTED"


def measured(members: Members, chunk: Chunk) -> Layout:
    """The fastest layout, by timing on copies of the states."""
    number, wanted, every = len(members.occupants), members.wanted or 1, len(members.places)
    first = every if members.is_spread else 1
    search = _Search(members, chunk, Layout(size_of(number, first, wanted), first))
    if every > first:
        search.speed_of(Layout(size_of(number, every, wanted), every))
    together = replace(search.best.layout, lanes=lanes_of(members, search.best.layout.devices))
    if together.lanes > 1:
        search.speed_of(together)
    if members.wanted is None:
        sizes = _sizes(number, together.places)
        if search.is_small and len(sizes) > 1 and (first := _tried(search, together, sizes[1:])):
            sizes = sizes[:1] if first < GAIN else []
        _tried(search, together, sizes)
    return search.best.layout


def _tried(search: "_Search", layout: Layout, sizes: Sequence[int]) -> float:
    """Looks at groups of these sizes, as long as they get faster.

    Returns:
        How many times as fast as the best before the first of them was; 0 when it was not members.
    """
    speeds: list[float] = []
    for size in sizes:
        speed = search.speed_of(replace(layout, size=size))
        if 0 < speed < GAIN and layout.lanes > 1:  # its operations may use all cores already
            speed = max(speed, search.speed_of(replace(layout, size=size, lanes=1)))
        speeds.append(speed)
        if sum(speed < GAIN for speed in speeds) > 1 or speeds[-1] < 1 / CLEAR:
            break
    return speeds[0] if speeds else 0.0


def lanes_of(members: Members, devices: int) -> int:
    """Groups that may go off side by side, where there are several members for one device."""
    return min(most_lanes(members.places[:devices]), len(members.occupants))


def size_of(number: int, places: int, most: int) -> int:
    """Members in a group when so many are the most: 10 by 8 are 5 and 5."""
    each = math.ceil(number / places)
    return math.ceil(each / math.ceil(each / most))


def _sizes(number: int, places: int) -> list[int]:
    """Sizes of groups to try, each of equal parts of all members."""
    each = math.ceil(number / places)
    powers = [4**power for power in range(1, 6) if 4**power < each]
    equal = [size_of(number, places, most) for most in [*powers, each]]
    return [size for size in dict.fromkeys(equal) if size > 1]


class _Search:
    """The best layout so far.

    Attributes:
        best: as it was timed.

    Args:
        members: the population.
        chunk: one batch.
        first: the layout to begin with.
    """

    def __init__(self, members: Members, chunk: Chunk, first: Layout) -> None:
        self._members, self._chunk = members, chunk
        self.best = _Candidate(members, chunk, first)
        self._compiled = {(first.size, first.devices)}
        self._began = time.perf_counter()
        self.best.time()

    def speed_of(self, layout: Layout) -> float:
        """How many times as fast as the best so far another layout is; then it may be the best.

        0 when it does not members, or when to look at it would take too long.
        """
        members, best = self._members, self.best
        program = layout.size, layout.devices
        cost = 0.0 if program in self._compiled else layout.devices * best.compile_seconds
        if self._left < cost:
            return 0.0
        try:
            lack = lack_of_memory(members, layout, self._chunk)
            candidate = None if lack else _Candidate(members, self._chunk, layout, best.chosen)
        except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
            # an operation without a rule for one more axis, or more than the memory holds
            if isinstance(error, jax.errors.JaxRuntimeError) and _FULL not in str(error):
                raise
            lack, candidate = str(error).splitlines()[0], None
        if candidate is None:
            members.parts.progress.note(
                f"Population: no {described(layout, members.where)}: {lack}"
            )
            return 0.0
        self._compiled.add(program)
        speed = self._compared(candidate)
        if speed >= GAIN:
            self.best = candidate
        return speed

    def _compared(self, candidate: "_Candidate") -> float:
        """How many times as fast a candidate is, looked at until that is clear."""
        speed = 1.0
        for number in range(ROUNDS):
            self.best.time()
            candidate.time()
            speed = self.best.per_step / candidate.per_step
            is_clear = number > 0 and not 1 / CLEAR < speed < CLEAR
            if is_clear or self._left < 0:
                break
        return speed

    @property
    def is_small(self) -> bool:
        """Whether a single run sends off such steps as a loop on a CPU."""
        chosen = self.best.chosen
        is_loop = chosen is not None and chosen.mode is Mode.LOOP
        return is_loop and first_of(self._members.places[0]).platform == "cpu"

    @property
    def _left(self) -> float:
        """Seconds that the search may still take."""
        steps = steps_left(self._members)
        share = SHARE_OF_SMALL if self.is_small else SHARE
        whole = LONGEST if steps is None else share * steps * self.best.per_step
        return whole - (time.perf_counter() - self._began)


def steps_left(members: Members) -> int | None:
    """Steps of each place that are to be expected; None when nobody knows."""
    batches = members.run.train_source.num_batches
    return (
        None if batches is None else batches * members.scheduler.expected_passes(members.num_epochs)
    )


def described(layout: Layout, where: str = "devices") -> str:
    """A layout, to people.

    Args:
        layout: see there.
        where: what groups lie on.
    """
    is_single, size = layout.size == 1, layout.size
    members = "members in turn" if is_single else f"{size} members in one program"
    members += f", {layout.lanes} {'' if is_single else 'such '}at a time" * (layout.lanes > 1)
    return members + f" on {layout.devices} {where}" * (layout.devices > 1)


class _Candidate:
    """A layout, with copies of states to time it on.

    Groups send off their steps as the single member does, which was timed for it.

    Attributes:
        seconds: of a step of a group in each place, the best time so far.
    """

    def __init__(
        self, members: Members, chunk: Chunk, layout: Layout, chosen: Plan | None = None
    ) -> None:
        number, size = len(members.occupants), layout.size
        self._places = [members.places[index % layout.devices] for index in range(layout.places)]
        self._rounds = math.ceil(math.ceil(number / size) / layout.places)
        self._layout, self._members, self._chunk = layout, members, chunk
        self._steps = [members.make_steps(size, place) for place in self._places]
        self._carries: list[Any] = []
        for steps, place in zip(self._steps, self._places, strict=True):
            first = len(self._carries) * size
            rows = [row % number for row in range(first, first + size)]
            if size == 1:
                state = on_place(members.rows.copy(members.states[rows[0]]), place)
            else:
                (state,) = members.rows.rearranged(members.states, 1, rows, size, [place])
            self._carries.append(Training(state, steps.empty_train(state, chunk, None)))
        self._distance = members.run.train_source.num_batches or MOST_STEPS
        steps = steps_left(members)
        self._remaining = None if steps is None else steps * self._rounds
        self.seconds = math.inf
        step = self._steps[0].train
        if chosen is not None and isinstance(step, FusedStep):
            step.choose(chosen)
        if chosen is None or chosen.mode is Mode.SINGLE:
            for steps, carry, place in zip(self._steps, self._carries, self._places, strict=True):
                steps.train.precompile((), carry, members.batches.on(chunk, place).feed)
        check_wanted(members, layout, chunk)
        self._settle()

    def time(self) -> None:
        """Times some steps; the best time so far counts."""
        is_unrolled = self.chosen is not None and self.chosen.mode is Mode.UNROLLED
        steps = max(UNROLLED if is_unrolled else 2, math.ceil(WINDOW / self.seconds))
        steps, done = min(steps, self._distance), 0
        jax.block_until_ready(self._carries)
        began = time.perf_counter()
        while done < steps:
            done += self._send(self._steps[0].train.plan(steps, self._remaining))
        jax.block_until_ready(self._carries)
        self.seconds = min(self.seconds, (time.perf_counter() - began) / done)

    @property
    def per_step(self) -> float:
        """Seconds of a step of all members; rows that fill up the last group count for nothing."""
        return self.seconds * self._rounds

    @property
    def layout(self) -> Layout:
        """The layout, with what was measured."""
        return replace(self._layout, seconds=self.seconds, compile_seconds=self.compile_seconds)

    @property
    def compile_seconds(self) -> float:
        """What compiling a step took, or finding it in the cache."""
        step = self._steps[0].train
        return step.compile_seconds if isinstance(step, FusedStep) else 0.0

    @property
    def chosen(self) -> Plan | None:
        """How its steps are sent off; None while that is not decided."""
        step = self._steps[0].train
        return step.chosen if isinstance(step, FusedStep) else None

    def _settle(self) -> None:
        """Runs until the step has chosen how it is sent off, or that takes too long."""
        step = self._steps[0].train
        self._send(step.plan(self._distance, self._remaining))
        jax.block_until_ready(self._carries)
        began, done, most = time.perf_counter(), 0, LONGEST
        while isinstance(step, FusedStep) and step.chosen is None and self._distance > 1:
            plan = step.plan(self._distance, self._remaining)
            if plan.window is not None or step.chosen is not None:
                done += self._send(plan)
            else:
                time.sleep(0.002)  # it waits for a program that is being compiled
            seconds = time.perf_counter() - began
            if self._remaining is not None and done >= min(SINGLES, self._distance):
                most = min(most, SHARE * self._remaining * seconds / done)
            if seconds > most:
                break

    def _send(self, plan: Plan) -> int:
        chunk = repeated(self._chunk, plan, self._distance)
        owns = [self._members.batches.on(chunk, place) for place in self._places]

        def send(index: int) -> None:
            step, carry = self._steps[index].train, self._carries[index]
            self._carries[index], _ = step((), carry, owns[index])

        lanes = 1 if plan.window is not None else self._layout.lanes
        self._members.lanes.each(len(owns), send, lanes, first_of(self._places[0]))
        return chunk.steps


def repeated(chunk: Chunk, plan: Plan, distance: int) -> Chunk:
    """A chunk of the planned form in which the one batch of `chunk` stands several times."""
    steps = min(plan.steps, max(distance, 1))
    feed: Any = chunk.feed
    if plan.mode is Mode.UNROLLED:
        feed = (feed,) * steps
    elif plan.mode is Mode.LOOP and not isinstance(feed, Rows):
        feed = jax.tree.map(lambda leaf: _stack(leaf, plan.capacity), feed)
    return Chunk(plan, feed, [*chunk.cursors] * steps, chunk.size)


def _stack(leaf: Any, capacity: int) -> Any:
    """A batch several times, on the host where it is there, as `prefetch_to_device` has it."""
    if isinstance(leaf, np.ndarray):
        return np.stack([leaf] * capacity)
    return keeping(lambda one: jax.numpy.stack([one] * capacity), stacked)(leaf)
