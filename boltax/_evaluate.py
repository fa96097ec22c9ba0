"""Evaluation and prediction: one exact pass over a loader.

    metrics = none
    for batch in loader: metrics = step(state, metrics, batch)     # accumulated on the device
    examples on the device must equal those that were drawn; then compute once, on the host

Nothing here changes the state.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np

from boltax._progress._progress import advance_examples
from boltax._steps import Steps
from boltax._trees import describe, num_examples
from boltax._types import Batch, ScalarMetrics
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import DataError, ModelError, TrainingError
from boltax.metrics._accumulate import compute

Track = Callable[..., Iterable[Any]]
"""`TrainerModule.tracker`: shows progress through an iterable."""


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
        poll: called after each batch; it raises to end the evaluation.

    Returns:
        Name to float, or to a NumPy array where a metric is not a scalar.

    Raises:
        DataError: when the loader gives no batch.
    """
    metrics: Any = None
    drawn = 0
    for batch, count in _batches(source, track, limit=limit, prefetch=prefetch, desc=desc):
        if metrics is None:
            metrics = steps.empty_eval(state, batch, None)
        metrics = steps.evaluate(state, metrics, batch)
        drawn += count
        poll()
    if metrics is None:
        raise DataError(
            f"Received a loader for {desc.lower()} without batches; expected at least one."
        )
    _check_seen(drawn, int(jax.device_get(metrics.examples)))
    return compute(metrics, prefix)


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
    for batch, count in _batches(source, track, limit=None, prefetch=prefetch, desc="Prediction"):
        outputs = steps.predict(state, batch)
        _check_outputs(outputs, count)
        in_flight.append(outputs)
        if len(in_flight) > prefetch:
            done.append(jax.device_get(in_flight.popleft()))
    done.extend(jax.device_get(outputs) for outputs in in_flight)
    if not done:
        raise DataError("Received a loader for prediction without batches; expected at least one.")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def _batches(
    source: Source, track: Track, *, limit: int | None, prefetch: int, desc: str
) -> Iterator[tuple[Batch, int]]:
    total = source.num_batches if limit is None else min(limit, source.num_batches or limit)
    stream = prefetch_to_device(
        islice(source.epoch(1), limit), depth=prefetch, copy=not source.owns_batches
    )
    bar = track(stream, desc=desc, total=total, leave=False)
    for batch, _, count in bar:
        yield batch, count
        advance_examples(bar, count)


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
