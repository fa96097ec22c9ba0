"""Prediction: the outputs for a whole data set, in its order. Nothing here changes the state."""

from collections import deque
from typing import Any

import jax
import numpy as np

from boltax._base._trees import describe, num_examples
from boltax._loop._evaluate import Track, shown
from boltax._step._steps import Steps
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import DataError, ModelError


def predict(steps: Steps, state: Any, source: Source, *, track: Track, prefetch: int = 2) -> Any:
    """The outputs of the prediction step for a whole data set, in its order.

    Returns:
        A pytree like that of one batch's outputs, with NumPy arrays ``[examples, ...]``.

    Raises:
        ModelError: when an output has no value for each example.
    """
    done: list[Any] = []
    # a few batches of outputs stay on the device while the next are computed
    in_flight: deque[Any] = deque()
    stream = prefetch_to_device(
        source.epoch(1),
        depth=prefetch,
        copy=not source.owns_batches,
        is_compiled=steps.evaluate.is_compiled,
    )
    bar = shown(stream, track, total=source.num_batches, desc="Prediction")
    for place, chunk in enumerate(bar):
        outputs = steps.predict(state, np.int32(place), chunk.feed)
        _check_outputs(outputs, chunk.size)
        in_flight.append(outputs)
        if len(in_flight) > prefetch:
            done.append(jax.device_get(in_flight.popleft()))
    done.extend(jax.device_get(outputs) for outputs in in_flight)
    if not done:
        raise DataError("Received a loader for prediction without batches; expected at least one.")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


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
