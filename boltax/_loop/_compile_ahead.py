"""Begins to compile the steps of a single run before its first batch is drawn."""

from concurrent.futures import Future
from typing import Any

from boltax._base._chunks import Chunk
from boltax._loop._evaluate import compile_ahead, planned_batches
from boltax._loop._one import One
from boltax._step._bodies import Training
from boltax._step._ema import evaluated
from boltax._step._fused import MOST_STEPS
from boltax._step._steps import Step
from boltax.callbacks._base import overriding
from boltax.data._array_loader import ArrayLoader
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.parallel._placement import Placement


def compile_steps_ahead(one: One) -> Future[Any] | None:
    """Begins to compile both steps, where arrays in memory tell their batches: training first.

    Returns:
        What is done when the evaluation step is compiled; None where that has not begun.
    """
    run, steps, state, trained = one.run, one.parts.steps, one.live.state, None
    with run.ledger.spent("compile"):
        if (chunk := _first_of_arrays(run.train_source, steps.train, steps.placement)) is not None:
            carry = Training(state, steps.empty_train(state, chunk, None))
            distance = _first_distance(one)
            trained = steps.train.precompile(steps.placement.number(1), carry, chunk.feed, distance)
        if (loader := run.validations.first_loader) is None:
            return None
        source = run.source(loader, "val_loader")
        if (chunk := _first_of_arrays(source, steps.evaluate, steps.placement)) is None:
            return None
        total = planned_batches(source, one.parts.loop.limit_val_batches)
        state = evaluated(state, one.parts.root_key)
        return compile_ahead(steps, state, chunk, total, trained)


def _first_distance(one: One) -> int:
    """Steps that will go off together, as far as it is known: callbacks are not ready to say."""
    run, callbacks = one.run, one.parts.callbacks
    if overriding(callbacks, "on_step_end"):
        return 1
    log_every = one.parts.loop.log_every if overriding(callbacks, "on_log") else None
    periods = (log_every, run.clock.trigger.steps, *run.validations.steps)
    ends = [MOST_STEPS, *(every - run.step % every for every in periods if every)]
    if (left := run.steps_left(run.train_source.num_batches)) is not None:
        ends.append(left)
    return max(1, min(ends))


def _first_of_arrays(source: Source, step: Step, placement: Placement) -> Chunk | None:
    if not isinstance(source, ArrayLoader):  # what others read is not ours to read twice
        return None
    chunks = prefetch_to_device(source.epoch(1), is_compiled=step.is_compiled, placement=placement)
    return next(chunks)
