"""Where the sums of means lie on the device: in few arrays, whatever the number of metrics.

Each array of a step costs the host time at each dispatch, so the sums of all means lie side by
side in one array for each dtype.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from boltax.metrics._means import Mean
from boltax.metrics._totals import FloatTotal, IntTotal, Total, is_float

INT = "int32"
"""The dtype whose first sum is the number of examples."""


class Slot(NamedTuple):
    """Where the sums of a total are.

    Attributes:
        dtype: of the array that holds them.
        start: the index of the first.
        shape: of the total.
    """

    dtype: str
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The index behind the last."""
        return self.start + int(np.prod(self.shape))


class Place(NamedTuple):
    """Where a mean is.

    Attributes:
        name: its name.
        total: where its total is.
        number: where its count is; None where it is the number of examples, which is there once.
    """

    name: str
    total: Slot
    number: Slot | None


def total_at(slot: Slot, sums: Mapping[str, Any]) -> Total:
    """A total out of the sums that lie side by side; see `packed`."""
    found = sums[slot.dtype]
    words = found.words[..., slot.start : slot.stop, :]
    return type(found)(words.reshape(*words.shape[:-2], *slot.shape, 2))


def mean_at(place: Place, sums: Mapping[str, Any]) -> Mean:
    """A mean out of the sums that lie side by side; see `packed`."""
    examples = IntTotal(sums[INT].words[..., 0, :])
    count = examples if place.number is None else total_at(place.number, sums)
    return Mean(total_at(place.total, sums), count)


def placed(means: Mapping[str, Mean], by_examples: Set[str]) -> tuple[Place, ...]:
    """Where the means of these names are to be, behind the number of examples.

    Args:
        means: name to mean.
        by_examples: those whose count is that number.
    """
    used, places = {INT: 1}, list[Place]()

    def slot(total: Total) -> Slot:
        dtype = jnp.dtype(total.words.dtype).name
        found = Slot(dtype, used.get(dtype, 0), total.words.shape[:-1])
        used[dtype] = found.stop
        return found

    for name in sorted(means):
        mean = means[name]
        total = slot(mean.total)
        places.append(Place(name, total, None if name in by_examples else slot(mean.count)))
    return tuple(places)


def packed(
    means: Mapping[str, Mean],
    examples: Total,
    places: tuple[Place, ...],
    concatenate: Callable[..., Any] = jnp.concatenate,
) -> dict[str, Any]:
    """The sums of means side by side; see `boltax.metrics.Metrics`.

    Args:
        means: the means; for several members with a first axis, as all that is given here.
        examples: the number of examples.
        places: see `placed`.
        concatenate: that of JAX, or that of NumPy for what is on the host.
    """
    lead = examples.words.shape[:-1]
    parts: dict[str, list[Any]] = {INT: [examples.words.reshape(*lead, 1, 2)]}
    for place in places:
        mean = means[place.name]
        for slot, total in ((place.total, mean.total), (place.number, mean.count)):
            if slot is not None:
                size = slot.stop - slot.start
                parts.setdefault(slot.dtype, []).append(total.words.reshape(*lead, size, 2))
    return {
        dtype: (FloatTotal if is_float(jnp.dtype(dtype)) else IntTotal)(concatenate(rows, axis=-2))
        for dtype, rows in parts.items()
    }
