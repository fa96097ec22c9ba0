"""Evaluation and prediction: one exact pass over a loader.

    metrics = none
    for batches in loader: metrics = step(state, metrics, batches)   # accumulated on the device
    examples on the device must equal those that were drawn; then compute once, on the host

Nothing here changes the state.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from boltax._base._chunks import Chunk, Plan
from boltax._base._trees import describe, num_examples
from boltax._base._types import ScalarMetrics
from boltax._loop._run import Run
from boltax._process._ledger import Ledger
from boltax._progress._progress import advance_examples
from boltax._step._bodies import Evaluation
from boltax._step._ema import evaluated
from boltax._step._fused import MOST_STEPS
from boltax._step._steps import Steps
from boltax.data._prefetch import one_item_each, prefetch_to_device
from boltax.data._source import Source
from boltax.errors import DataError, ModelError, TrainingError
from boltax.metrics._accumulate import Metrics, compute

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

Track = Callable[..., Iterable[Any]]
"""`TrainerModule.tracker`: shows progress through an iterable."""


def evaluate_for(trainer: "TrainerModule", loader: Any, prefix: str) -> ScalarMetrics:
    """What `TrainerModule.eval_model` does, with the limits and the progress of the trainer."""
    limits = {"val/": trainer.loop.limit_val_batches, "test/": trainer.loop.limit_test_batches}
    descriptions = {"val/": "Validation", "test/": "Test"}
    run = trainer.run or Run()
    is_repeated = prefix == "val/" and run.is_active and run.num_epochs is not None
    left = (run.num_epochs or 0) - run.epoch if is_repeated else 0
    return evaluate(
        trainer._made.steps,
        evaluated(trainer.state),
        run.known_source(loader),
        track=trainer.tracker,
        prefix=prefix,
        limit=limits.get(prefix),
        prefetch=trainer.loop.prefetch,
        desc=descriptions.get(prefix, "Evaluation"),
        passes=1 + left // trainer.check_val_every_n_epoch,
        poll=run.signals.poll,
    )


def evaluate(
    steps: Steps,
    state: Any,
    source: Source,
    *,
    track: Track,
    prefix: str = "",
    limit: int | None = None,
    prefetch: int = 2,
    desc: str = "Evaluation",
    passes: int = 1,
    poll: Callable[[], None] = lambda: None,
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

    Returns:
        Name to float, or to a NumPy array where a metric is not a scalar.

    Raises:
        DataError: when the loader gives no batch.
    """
    total = planned_batches(source, limit)

    def begin(first: Chunk) -> None:
        compile_ahead(steps, state, first, total)

    chunks = draw(steps, source, limit=limit, prefetch=prefetch, passes=passes, begin=begin)
    shown = _shown(chunks, track, total=total, desc=desc)
    return evaluate_chunks(steps, state, shown, prefix=prefix, desc=desc, poll=poll)


def compile_ahead(
    steps: Steps, state: Any, first: Chunk, total: int | None, after: Future[Any] | None = None
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
    constants = Evaluation(state, np.int32(0))
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
    )


def evaluate_chunks(
    steps: Steps,
    state: Any,
    chunks: Iterable[Chunk],
    *,
    prefix: str = "",
    desc: str = "Evaluation",
    poll: Callable[[], None] = lambda: None,
) -> ScalarMetrics:
    """The metrics of a state over chunks of batches; see `evaluate`."""
    metrics: Any = None
    full: Chunk | None = None
    drawn = 0
    for chunk in chunks:
        if metrics is None:
            metrics = steps.empty_eval(state, chunk, None)
        drawn += chunk.steps * chunk.size
        constants = Evaluation(state, np.int32(drawn))
        filled = None
        if full is not None:
            filled = steps.padding.evaluated(steps.evaluate, constants, metrics, chunk, full)
        metrics = steps.evaluate(constants, metrics, chunk)[0] if filled is None else filled
        full = full or chunk
        poll()
    if metrics is None:
        raise DataError(
            f"Received a loader for {desc.lower()} without batches; expected at least one."
        )
    host: Metrics = jax.device_get(metrics)
    _check_seen(drawn, int(host.examples))
    return compute(host, prefix)


def predict(steps: Steps, state: Any, source: Source, *, track: Track, prefetch: int = 2) -> Any:
    """The outputs of the prediction step for a whole data set, in its order.

    Returns:
        A pytree like that of one batch's outputs, with NumPy arrays ``[examples, ...]``.

    Raises:
        ModelError: when an output has no value for each example.
    """
    done: list[Any] = []
    in_flight: deque[Any] = (
        deque()
    )  # a few batches of outputs stay on the device while the next are computed
    stream = prefetch_to_device(
        source.epoch(1),
        depth=prefetch,
        copy=not source.owns_batches,
        is_compiled=steps.evaluate.is_compiled,
    )
    for chunk in _shown(stream, track, total=source.num_batches, desc="Prediction"):
        outputs = steps.predict(state, chunk.feed)
        _check_outputs(outputs, chunk.size)
        in_flight.append(outputs)
        if len(in_flight) > prefetch:
            done.append(jax.device_get(in_flight.popleft()))
    done.extend(jax.device_get(outputs) for outputs in in_flight)
    if not done:
        raise DataError("Received a loader for prediction without batches; expected at least one.")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def planned_batches(source: Source, limit: int | None) -> int | None:
    """The batches that will be read of a source, at most `limit`; None when nobody knows."""
    return source.num_batches if limit is None else min(limit, source.num_batches or limit)


def _shown(
    stream: Iterable[Chunk], track: Track, *, total: int | None, desc: str
) -> Iterator[Chunk]:
    """The chunks of a stream, with their progress shown batch by batch."""
    bar = track(one_item_each(stream, Ledger()), desc=desc, total=total, leave=False)
    for chunk in bar:
        if chunk is not None:
            yield chunk
            advance_examples(bar, chunk.steps * chunk.size)


def _check_seen(drawn: int, seen: int) -> None:
    if drawn != seen:
        raise TrainingError(
            f"Received {drawn} examples from the loader but counted {seen} on the device; expected "
            "the same number. An evaluation step must not drop or repeat examples: return metrics "
            "for the whole batch."
        )


def _check_outputs(outputs: Any, count: int) -> None:
    try:
        is_complete = num_examples(outputs) == count
    except DataError:
        is_complete = False
    if not is_complete:
        raise ModelError(
            f"Received outputs with {describe(outputs, 'outputs')} for a batch of {count} "
            f"examples; expected arrays [{count}, ...]. Return a value per example from "
            "predict_function."
        )
