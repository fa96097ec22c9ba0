"""Several steps in one dispatch, where that was measured to be faster.

A `FusedStep` sends off steps one by one, several as a compiled loop, or several one after the
other in one program. They give the same numbers (see `is_unrolling_exact`). With
``steps_per_execution="auto"`` it times them on the first real steps of a run and keeps the fastest;
`FusedStep._measurements` reads as it runs. No batch is trained on twice. The steps in a dispatch
are at most those to the next event, so nothing moves from its step.

It begins with single steps; on a CPU, where steps are so small that sending them off is a large
part of their time, with the loop, so that short runs have it too. What measuring may cost: a few
dozen steps that are waited for, and one compilation for each other way, begun only where it takes
at most a twentieth (for steps of some ms) to a quarter (for steps below 1 ms) of the time that the
run has left. It runs in the background.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import jax

from boltax._base._chunks import Chunk, Made, Mode, Plan, Rows, batch_of, one_of, stacked_form
from boltax._base._trees import tree_bytes
from boltax._base._types import Carry, Constants, Feed, Outputs, PyTree
from boltax._step._programs import Compiling, Program
from boltax.parallel._devices import is_on_cpu
from boltax.parallel._placement import ONE_DEVICE, Placement

MOST_STEPS = 512
"""Steps in a dispatch at most; more bring nothing."""
MOST_BYTES, MOST_BYTES_FIRST = 2**26, 2**22
"""Bytes of the batches in a dispatch at most (two of them are on the device); the second where
nobody knows yet how many steps are worth it."""
LONGEST = 0.1
"""Seconds that a dispatch may take: more bring nothing, and a signal or a limit of time waits."""
UNROLLED = 4
"""Steps in a dispatch when they stand one after the other in the program."""
SINGLES = 16
"""Single steps that are timed together, as they overlap."""
ROUNDS = 3
"""How often each way is timed; the best time counts."""
LEAST_SHARE, MOST_SHARE = 0.05, 0.25
"""Compiling another way may take this part of the time that is left: the less, the longer a step
takes, for what fusing saves is about the same for all steps."""
SAVED = 2.5e-4
"""Seconds that a step may save, roughly, when several go off together."""
SMALL_FLOPS, SMALL_BYTES = 200_000_000, 2**24
"""Operations, and bytes of what it reads, of a step (some ms on a CPU) that begins as a loop."""
PROBED = 32
"""Steps of that loop that are timed together, to know how many may go off at once."""
HOPELESS = 3.0
"""A loop whose first step is slower by this factor is not timed any further."""
GAIN = 1.03
"""Another way must be faster by this factor."""


Core: TypeAlias = Callable[[Constants, Carry, PyTree], PyTree]
"""The user's step within one of boltax."""


@dataclass
class _Window:
    """Steps that are timed together; they are planned first, and executed later."""

    mode: Mode
    steps: int
    planned: int = 0
    done: int = 0
    began: float = 0.0
    seconds: float | None = None

    def plan(self, distance: int, capacity: int) -> Plan | None:
        """The next steps of the window; None when all are planned, or an event is among them."""
        left = self.steps - self.planned
        if left <= 0 or (not self.planned and left > distance):
            return None
        size = 1 if self.mode is Mode.SINGLE else left
        self.planned += size
        return Plan(self.mode, size, capacity, self)


class FusedStep:
    """A step in its three compiled forms, and the choice between them.

    Attributes:
        programs: by mode; each is called with ``(constants, carry, feed)``, that of LOOP with a
            count before the feed, and gives ``(carry, outputs)``.
        chosen: the way to send off steps; None while that is not decided.

    Args:
        programs: see there.
        wanted: ``"auto"``, or the number of steps in a dispatch.
        name: names the step to people.
        tell: is told what was chosen.
        placement: where arrays lie.
        check: is asked about the form of the first batch, before anything is compiled; or None.
        core: ``(constants, carry, batch)``: the user's step, in which all matrix products are, and
            which is traced by then; or None.
    """

    is_compiled = True

    def __init__(
        self,
        programs: dict[Mode, Program],
        *,
        wanted: int | str,
        name: str,
        tell: Callable[[str], None] = lambda _: None,
        placement: Placement = ONE_DEVICE,
        check: Callable[[PyTree], None] | None = None,
        core: Core | None = None,
    ) -> None:
        self.programs, self._core = programs, core
        self._placement, self._check = placement, check
        self.chosen: Plan | None = Plan() if wanted == 1 else None
        self._wanted, self._name, self._tell = wanted, name, tell
        self._first = Mode.SINGLE  # how steps go off until that is decided
        self._plans = {Mode.SINGLE: Plan()}  # of the ways that are compiled
        self._begun: Compiling | None = None  # the first way, in compilation
        self._args: tuple[PyTree, ...] = ()  # forms of the arguments of a single step
        self._executed = 0
        self._widest = self._nearest = 1  # most steps in a loop, and in other dispatches
        self._remaining: int | None = None
        self._windows: list[_Window] = []
        self._course = self._measurements()

    @property
    def flops(self) -> int | None:
        """Operations of matrix products and convolutions in a step; None before it is compiled."""
        return self.programs[Mode.SINGLE].flops

    def choose(self, plan: Plan) -> None:
        """Takes a choice that was made by measuring elsewhere."""
        self.chosen = plan

    @property
    def compile_seconds(self) -> float:
        """What the dearest of its programs took to trace and compile, or to find in the cache."""
        return max(program.compile_seconds for program in self.programs.values())

    def precompile(
        self,
        constants: Constants,
        carry: Carry,
        feed: Feed,
        distance: int = 1,
        after: Compiling | None = None,
    ) -> Compiling | None:
        """Begins to compile the way in which steps go off first, in the background; once.

        Args:
            constants: what the steps will read.
            carry: what they will change.
            feed: the feed of a single step.
            distance: steps to the first event, as in `plan`.
            after: something else that is to be compiled before.

        Returns:
            What is done when that is done; None where steps went off before.
        """
        if self._args:  # it has begun
            return self._begun
        self._begin(constants, carry, feed, Mode.SINGLE)
        self._widest = max(self._widest, distance)
        if self._wanted != 1 and distance > 1 and self._is_loop_first():
            self._first = Mode.LOOP
            if self._wanted != "auto":
                self.chosen = self._as_wanted()
        self._begun = self._start(self._first, after=after)
        return self._begun

    def restart(self) -> None:
        """Forgets what was planned and not executed: another pass over data begins."""
        for window in self._windows:
            if window.seconds is None:
                window.planned = window.done = 0

    def plan(self, distance: int, remaining: int | None, until_due: int | None = None) -> Plan:
        """How to send off the next steps.

        Args:
            distance: steps to the next event.
            remaining: steps that are left in all; None when unknown.
            until_due: steps to the next record, of which a loop has its own account; others end
                there.
        """
        near = distance if until_due is None else min(distance, until_due)
        self._widest, self._nearest = max(self._widest, distance), max(self._nearest, near)
        self._remaining = remaining
        if self.chosen is None and self._executed:
            if self._wanted != "auto":
                self.chosen = self._as_wanted()
            elif (timed := self._timed(distance, near)) is not None:
                return timed
        chosen = self.chosen or self._plans[self._first]
        if chosen.mode is Mode.LOOP and (distance > 1 or self._first is Mode.LOOP):
            # 100 are 50 and 50, not 64 and 36
            return replace(chosen, steps=_equal_parts(distance, chosen.steps))
        return chosen if chosen.steps <= near else Plan()

    def __call__(self, constants: Constants, carry: Carry, chunk: Chunk) -> tuple[Carry, Outputs]:
        """Sends off the steps of a chunk.

        Args:
            constants: what the steps read.
            carry: what they change; its memory is taken.
            chunk: their batches.

        Returns:
            The new carry, and the outputs ``[steps or more]``; of a single step without an axis.
        """
        window: _Window | None = chunk.plan.window
        if window is not None and not window.done:
            jax.block_until_ready(carry)
            window.began = time.perf_counter()
        mode = chunk.plan.mode
        if not self._args:
            self._begin(constants, carry, chunk.feed, mode)
        count = (self._placement.number(chunk.steps),) if mode is Mode.LOOP else ()
        carry, outputs = self.programs[mode](constants, carry, *count, chunk.feed)
        self._executed += chunk.steps
        if window is not None:
            window.done += chunk.steps
            if window.done >= window.steps or chunk.steps < chunk.plan.steps:  # the data ended
                jax.block_until_ready(carry)
                seconds = (time.perf_counter() - window.began) / window.done
                window.seconds = self._of_all("the time of a step", seconds)
        return carry, outputs

    def _of_all(self, what: str, seconds: float) -> float:
        """What the first process of a job has measured: all choose by the same times."""
        return float(self._placement.group.exchange(what, seconds)[0])

    def _begin(self, constants: Constants, carry: Carry, feed: Feed, mode: Mode) -> None:
        """Looks at the first batch, and notes the forms of a step's arguments."""
        if self._check is not None:
            is_made = isinstance(one := one_of(mode, feed), Rows | Made)
            self._check(jax.eval_shape(batch_of, one) if is_made else one)
        self._args = self._placement.forms((constants, carry, feed))

    def _timed(self, distance: int, near: int) -> Plan | None:
        if all(window.seconds is not None for window in self._windows):
            self._windows = next(self._course, [])
        plans = (
            window.plan(
                distance if window.mode is Mode.LOOP else near, self._plans[window.mode].capacity
            )
            for window in self._windows
        )
        return next((plan for plan in plans if plan is not None), None)

    def _measurements(self) -> Iterator[list[_Window]]:
        """The measurements: each is gone on from when the windows that it gave are timed."""
        first = self._first
        if first is Mode.LOOP:
            yield [one := _Window(first, 1)]
            self._limit(one.seconds or 0.0)
        yield (windows := [_Window(first, self._probed(first, PROBED)) for _ in range(ROUNDS)])
        before = min(window.seconds or 0.0 for window in windows)
        if first is Mode.LOOP:
            self._limit(before)
            self._say(first, f"{_shown(before)} a step")
        for mode in self._other_ways():
            while self._widest < 2:
                yield []
            if not self._pays(mode, before):
                continue
            compiled = self._start(mode, before)
            if not self._placement.group.is_alone:
                compiled.result()  # so that all go on at the same step
            while not compiled.done():
                yield []
            yield [alone := _Window(mode, UNROLLED if mode is Mode.UNROLLED else 1)]
            if (alone.seconds or 0.0) > max(HOPELESS * before, before + 0.05):
                continue
            sizes = {m: self._probed(m, MOST_STEPS) for m in (first, mode)}
            yield (windows := [_Window(m, n) for _ in range(ROUNDS) for m, n in sizes.items()])
            best = {m: min(w.seconds or 0.0 for w in windows if w.mode is m) for m in sizes}
            before = best[first]
            if before > GAIN * best[mode]:
                self.chosen = self._plans[mode]
                self._say(mode, f"{_shown(best[mode])} a step instead of {_shown(before)}")
                return
        self.chosen = self._plans[first]

    def _probed(self, mode: Mode, most: int) -> int:
        """Steps of a way that are timed together."""
        return (
            min(SINGLES, self._nearest)
            if mode is Mode.SINGLE
            else min(most, self._plans[mode].steps)
        )

    def _limit(self, seconds: float) -> None:
        """Has a loop take no longer than it may, by what a step takes."""
        plan = self._plans[Mode.LOOP]
        most = max(1, int(LONGEST / max(seconds, 1e-6)))
        self._plans[Mode.LOOP] = replace(plan, steps=min(most, plan.capacity))

    def _say(self, mode: Mode, speed: str) -> None:
        steps = self._plans[mode].steps
        self._tell(f"{self._name}: {steps} step{'s' * (steps > 1)} in a dispatch, {speed}")

    def _other_ways(self) -> tuple[Mode, ...]:
        if self._first is Mode.LOOP:
            return (Mode.SINGLE,)
        loop = () if self._is_loop_slow() else (Mode.LOOP,)
        return (*loop, Mode.UNROLLED) if is_unrolling_exact() else loop

    def _pays(self, mode: Mode, seconds: float) -> bool:
        """Whether there are so many steps left that another way may win back its compilation."""
        if self._remaining is None:
            return True
        once = self._of_all("the time of compiling", self.programs[self._first].compile_seconds)
        cost = once * (UNROLLED if mode is Mode.UNROLLED else 1.2)
        share = LEAST_SHARE
        if self._first is Mode.SINGLE:
            share = min(MOST_SHARE, max(share, SAVED / max(seconds, 1e-9)))
        return cost < share * self._remaining * seconds

    def _start(
        self, mode: Mode, seconds: float | None = None, after: Compiling | None = None
    ) -> Compiling:
        """Begins to compile a way: a loop with as many steps as are reasonable.

        Args:
            mode: the way.
            seconds: what a single step takes; None while nobody knows.
            after: see `precompile`.
        """
        constants, carry, feed = self._args
        if mode is Mode.SINGLE:
            return self.programs[mode].start(constants, carry, feed, after=after)
        if mode is Mode.UNROLLED:
            self._plans[mode] = Plan(mode, UNROLLED, UNROLLED)
            return self.programs[mode].start(constants, carry, (feed,) * UNROLLED)
        capacity = self._capacity(feed, seconds)
        self._plans[mode] = Plan(mode, 1 if seconds is None else capacity, capacity)
        return self.programs[mode].start(
            constants,
            carry,
            self._placement.forms(self._placement.number(1)),
            stacked_form(feed, capacity),
            after=after,
        )

    def _capacity(self, feed: Feed, seconds: float | None) -> int:
        if self._wanted != "auto":
            return int(self._wanted)
        most, most_bytes = MOST_STEPS, MOST_BYTES_FIRST
        if seconds is not None:
            most, most_bytes = min(most, int(LONGEST / max(seconds, 1e-6))), MOST_BYTES
        if not isinstance(feed, Rows):
            most = min(most, most_bytes // max(tree_bytes(feed), 1))
        return _equal_parts(self._widest, max(most, 2))

    def _as_wanted(self) -> Plan:
        """The way with the number of steps that the user asked for."""
        wanted = int(self._wanted)
        is_unrolled = wanted <= 2 * UNROLLED and self._is_loop_slow()
        return Plan(Mode.UNROLLED if is_unrolled else Mode.LOOP, wanted, wanted)

    def _is_loop_first(self) -> bool:
        """Whether a loop is expected to be the fastest: of small steps on a CPU."""
        if not is_on_cpu():
            return False
        step = self.programs[Mode.SINGLE]
        if (core := self._core) is None:
            step.trace(*self._args)
        else:  # a twentieth of the time of tracing the program around it, which may never run
            of_feed = jax.make_jaxpr(
                lambda constants, carry, feed: core(constants, carry, batch_of(feed))
            )
            step.expect(of_feed(*self._args), *self._args)
        is_small = (step.flops or 0) <= SMALL_FLOPS and tree_bytes(self._args) <= SMALL_BYTES
        return not self._is_loop_slow() and (is_small or self._wanted != "auto")

    def _is_loop_slow(self) -> bool:
        """Whether a loop is known to be slow: those of convolutions on a CPU, 40 times."""
        return is_on_cpu() and self.programs[Mode.SINGLE].has_convolutions


def is_unrolling_exact() -> bool:
    """Whether steps one after the other in a program give the numbers of single steps.

    On a CPU, before JAX 0.12, they may differ in the last bit, for XLA fuses across steps; so
    ``"auto"`` leaves them alone, and a resumed run stays exact.
    """
    return not is_on_cpu() or jax.__version_info__ >= (0, 12)


def _equal_parts(steps: int, most: int) -> int:
    """The size of the largest of as few equal parts as hold `most` at most."""
    return -(-steps // -(-steps // most))


def _shown(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
