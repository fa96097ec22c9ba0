"""Prediction: the outputs for a whole data set, in its order. Nothing here changes the state."""

from collections import deque
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Chunk
from boltax._base._trees import common_size, describe
from boltax._base._types import Outputs, State
from boltax._loop._evaluate import Track, shown
from boltax._step._steps import Steps
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source, check_ends
from boltax.errors import DataError, ModelError


def predict(steps: Steps, state: State, source: Source, *, track: Track, prefetch: int = 2) -> Any:
    """The outputs of the prediction step for a whole data set, in its order.

    Returns:
        A pytree like that of one batch's outputs, with NumPy arrays ``[examples, ...]``.

    Raises:
        ModelError: when an output has no value for each example.
    """
    check_ends(source, "Take a part of it, as with .take(...)")
    done: list[Any] = []
    # a few batches of outputs stay on the device while the next are computed
    in_flight: deque[Any] = deque()
    stream = prefetch_to_device(
        source.epoch(1),
        depth=prefetch,
        copy=not source.owns_batches,
        is_compiled=steps.evaluate.is_compiled,
        size_of=steps.size_of,
        placement=steps.placement,
    )
    bar = shown(stream, track, total=source.num_batches, desc="Prediction")
    for place, chunk in enumerate(bar):
        outputs = steps.predict(state, np.int32(place), chunk.feed)
        _check_outputs(outputs, chunk)
        in_flight.append(outputs)
        if len(in_flight) > prefetch:
            done.append(steps.placement.to_host(in_flight.popleft()))
    done.extend(steps.placement.to_host(outputs) for outputs in in_flight)
    if not done:
        raise DataError("Received a loader for prediction without batches; expected at least one.")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def _check_outputs(outputs: Outputs, chunk: Chunk) -> None:
    count, found = chunk.size, common_size(outputs)
    is_complete = found == count or (found is not None and common_size(chunk.form) is None)
    if not is_complete or any(not np.ndim(leaf) for leaf in jax.tree.leaves(outputs)):
        raise ModelError(
            f"Received outputs with {describe(outputs, 'outputs')} for a batch of {count} "
            f"examples; expected arrays [{count}, ...]. Return a value per example from "
            "predict_function."
        )
