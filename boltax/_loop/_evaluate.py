"""Evaluation: one exact pass over a loader, for one state or for several side by side.

    metrics = none
    for batches in loader: metrics = step(state, metrics, batches)   # accumulated on the device
    examples on the device must equal those that were drawn; then compute once, on the host

Nothing here changes the state.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from boltax._base._chunks import Chunk, Plan
from boltax._base._types import Loader, ScalarMetrics, State
from boltax._build._parts import Parts
from boltax._loop._derived import Derive, computed
from boltax._loop._run import Run
from boltax._process._ledger import Ledger
from boltax._progress._progress import advance_examples
from boltax._step._bodies import evaluation_of
from boltax._step._ema import evaluated
from boltax._step._fused import MOST_STEPS
from boltax._step._steps import Steps
from boltax.data._prefetch import one_item_each, prefetch_to_device
from boltax.data._source import Source, check_ends
from boltax.errors import ConfigurationError, DataError, TrainingError
from boltax.metrics._accumulate import Metrics

Track = Callable[..., Iterable[Any]]
"""`TrainerModule.tracker`: shows progress through an iterable."""


class Evaluations(Protocol):
    """How an evaluation step is sent off for several states; a part of `Dispatch`."""

    def steps_of(self, index: int) -> Steps:
        """The compiled steps for a state."""
        ...

    def placed(self, chunk: Chunk) -> Sequence[Chunk]:
        """A chunk on each device that is used; states take them in turn."""
        ...

    def send_each(self, number: int, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off for so many states, by their index."""
        ...


@dataclass(frozen=True)
class OneState:
    """The dispatch of a single state."""

    steps: Steps

    def steps_of(self, index: int) -> Steps:
        """The steps, for whatever index."""
        return self.steps

    def placed(self, chunk: Chunk) -> Sequence[Chunk]:
        """The chunk where it is."""
        return (chunk,)

    def send_each(self, number: int, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off for the only state."""
        send(0)


def evaluate_for(
    parts: Parts, run: Run | None, state: State, loader: Loader, prefix: str, track: Track
) -> ScalarMetrics:
    """What `TrainerModule.eval_model` does, with the limits of the trainer.

    Args:
        parts: what the trainer is made of.
        run: its run; None before the first.
        state: the training state.
        loader: what to read, once.
        prefix: put before each metric's name.
        track: shows progress.
    """
    if not isinstance(prefix, str):
        raise ConfigurationError(
            f"Received log_prefix={prefix!r} ({type(prefix).__name__}); expected text that is put "
            'before each name of a metric. Write eval_model(loader, "val/").'
        )
    prefix += "/" if prefix[-1:].isalnum() else ""  # "val" is meant as "val/"
    limits = {"val": parts.loop.limit_val_batches, "test": parts.loop.limit_test_batches}
    phase, _, name = prefix.removesuffix("/").partition("/")
    phase = phase if prefix.endswith("/") else ""
    desc = {"val": "Validation", "test": "Test"}.get(phase, "Evaluation")
    run = run or Run(placement=parts.steps.placement)
    return evaluate(
        parts.steps,
        evaluated(state, parts.root_key),
        run.known_source(loader),
        track=track,
        prefix=prefix,
        limit=limits.get(phase),
        prefetch=parts.loop.prefetch,
        desc=f"{desc} of {name}" if name else desc,
        passes=validations_left(run) if phase == "val" else 1,
        poll=run.poll,
        derive=parts.derive,
    )


def validations_left(run: Run) -> int:
    """The validations of a run that are still to come, with this one."""
    if not run.is_active:
        return 1
    limits = run.limits
    return run.validations.still_to_come(run.step, limits.total_steps, run.epoch, limits.num_epochs)


def evaluate(
    steps: Steps,
    state: State,
    source: Source,
    *,
    track: Track,
    prefix: str = "",
    limit: int | None = None,
    prefetch: int = 2,
    desc: str = "Evaluation",
    passes: int = 1,
    poll: Callable[[], None] = lambda: None,
    derive: Derive = None,
) -> ScalarMetrics:
    """The metrics of a state over a data set, each example counted exactly once.

    Args:
        steps: the compiled steps.
        state: the training state; it is not changed.
        source: what to read, once.
        track: shows progress.
        prefix: put before each metric's name.
        limit: at most so many batches.
        prefetch: batches put on the device ahead.
        desc: what the progress bar says.
        passes: how many such evaluations are still to come, with this one.
        poll: called after each batch; it raises to end the evaluation.
        derive: gives further metrics, from these.

    Returns:
        Name to float, or to a NumPy array where a metric is not a scalar.

    Raises:
        DataError: when the loader gives no batch.
    """
    total = planned_batches(source, limit)

    def begin(first: Chunk) -> None:
        compile_ahead(steps, state, first, total)

    chunks = draw(steps, source, limit=limit, prefetch=prefetch, passes=passes, begin=begin)
    bar = shown(chunks, track, total=total, desc=desc)
    host = evaluate_states(OneState(steps), [state], bar, desc=desc, poll=poll)
    return computed(host[0], prefix, derive)


def compile_ahead(
    steps: Steps, state: State, first: Chunk, total: int | None, after: Future[Any] | None = None
) -> Future[Any] | None:
    """Begins to compile the evaluation step in the background.

    Args:
        steps: the compiled steps.
        state: a state of the form of those to come.
        first: the first batch, or one of its form.
        total: batches of an evaluation, if known.
        after: something else that is to be compiled before.

    Returns:
        What is done when that is done; None where nothing is compiled ahead.
    """
    constants = evaluation_of(state, 0)
    metrics = steps.empty_eval(state, first, None)
    distance = total or MOST_STEPS
    return steps.evaluate.precompile(constants, metrics, first.feed, distance, after)


def draw(
    steps: Steps,
    source: Source,
    *,
    limit: int | None = None,
    prefetch: int = 2,
    passes: int = 1,
    members: int = 1,
    begin: Callable[[Chunk], None] | None = None,
) -> Iterator[Chunk]:
    """The batches of one evaluation, in chunks as the evaluation step takes them.

    Args:
        steps: the compiled steps.
        source: what to read, once.
        limit: at most so many batches.
        prefetch: batches put on the device ahead.
        passes: how many such evaluations are still to come, with this one.
        members: how often each batch is evaluated.
        begin: see `prefetch_to_device`.
    """
    total = planned_batches(source, limit)
    if limit is None:
        check_ends(source, "Write LoopOptions(limit_val_batches=...)")
    steps.evaluate.restart()

    def plan(drawn: int) -> Plan:
        if total is None:
            return steps.evaluate.plan(MOST_STEPS, None)
        return steps.evaluate.plan(max(total - drawn, 1), (total * passes - drawn) * members)

    return prefetch_to_device(
        source.epoch(1),
        plan,
        limit=limit,
        depth=prefetch,
        copy=not source.owns_batches,
        is_compiled=steps.evaluate.is_compiled,
        begin=begin,
        size_of=steps.size_of,
        placement=steps.placement,
    )


def evaluate_states(
    dispatch: Evaluations,
    states: Sequence[State],
    chunks: Iterable[Chunk],
    *,
    desc: str = "Evaluation",
    poll: Callable[[], None] = lambda: None,
) -> list[Metrics]:
    """The metrics of several states over chunks of batches, on the host; see `evaluate`.

    Args:
        dispatch: how a step is sent off for each state.
        states: as the evaluation step reads them.
        chunks: the batches.
        desc: names the evaluation in an error.
        poll: called after each chunk; it raises to end the evaluation.
    """
    metrics: list[Any] = []
    full: Sequence[Chunk] = ()
    drawn = 0
    for chunk in chunks:
        metrics = metrics or [
            dispatch.steps_of(index).empty_eval(state, chunk, None)
            for index, state in enumerate(states)
        ]
        drawn += chunk.steps * chunk.size
        placed = dispatch.placed(chunk)
        send = partial(_send, dispatch, states, metrics, placed, full, drawn)
        dispatch.send_each(len(states), send, is_timed=chunk.plan.window is not None)
        full = full or placed
        poll()
    if not metrics:
        raise DataError(
            f"Received a loader for {desc.lower()} without batches; expected at least one."
        )
    host: list[Metrics] = jax.device_get(metrics)
    for one in host:
        _check_seen(drawn, one.examples.value())
    return host


def _send(
    dispatch: Evaluations,
    states: Sequence[State],
    metrics: list[Any],
    placed: Sequence[Chunk],
    full: Sequence[Chunk],
    drawn: int,
    index: int,
) -> None:
    """Sends off evaluation steps of a state; a batch with fewer examples is filled up."""
    steps, place = dispatch.steps_of(index), index % len(placed)
    chunk, constants, filled = placed[place], evaluation_of(states[index], drawn), None
    if full:
        filled = steps.padding.evaluated(
            steps.evaluate, constants, metrics[index], chunk, full[place]
        )
    if filled is None:
        filled = steps.evaluate(constants, metrics[index], chunk)[0]
    metrics[index] = filled


def planned_batches(source: Source, limit: int | None) -> int | None:
    """The batches that will be read of a source, at most `limit`; None when nobody knows."""
    return source.num_batches if limit is None else min(limit, source.num_batches or limit)


def shown(
    stream: Iterable[Chunk], track: Track, *, total: int | None, desc: str
) -> Iterator[Chunk]:
    """The chunks of a stream, with their progress shown batch by batch."""
    bar = track(one_item_each(stream, Ledger()), desc=desc, total=total, leave=False)
    for chunk in bar:
        if chunk is not None:
            yield chunk
            advance_examples(bar, chunk.steps * chunk.size)


def _check_seen(drawn: int, counted: Any) -> None:
    """Compares examples with those that each member of a state has counted."""
    for seen in np.atleast_1d(counted).tolist():
        if drawn == seen:
            continue
        raise TrainingError(
            f"Received {drawn} examples from the loader but counted {seen} on the device; expected "
            "the same number. An evaluation step must not drop or repeat examples: return metrics "
            "for the whole batch."
        )
