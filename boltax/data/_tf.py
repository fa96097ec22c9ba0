"""A `tf.data.Dataset` as a source.

May not import tensorflow: a program that has a data set has done so.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._arrays import is_a
from boltax.data._cursor import consumed
from boltax.data._iterables import dropping, length, numbered
from boltax.errors import DataError

ENDLESS = -1
"""The cardinality that TensorFlow gives a data set that repeats for ever; an unknown one is -2."""


class TfSource:
    """A `tf.data.Dataset` whose elements are batches; each epoch is one iteration.

    Its arrays are views of TensorFlow's memory, which nobody writes to. It assigns to itself to
    count its iterations, since TensorFlow draws the order of each from the seed in turn.

    Args:
        dataset: the data set, batched.
        name: the loader, as messages name it.

    Raises:
        DataError: when its elements are ragged or sparse.
    """

    owns_batches = True

    def __init__(self, dataset: Any, name: str) -> None:
        _check_dense(dataset.element_spec, name)
        self.num_batches = length(dataset)  # raises where the number is unknown or infinite
        self.is_endless = self.num_batches is None and int(dataset.cardinality()) == ENDLESS
        self._dataset = dataset
        self._passes = 0

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; batches that were consumed are read and dropped.

        The order is TensorFlow's own: give `shuffle` a seed to have it repeat.
        """
        start = consumed(after, epoch)
        while after is not None and self._passes < epoch - 1:  # in a new process
            self._iterate()
        batches = dropping(self._iterate(), start, "tf.data.Dataset")
        return numbered(batches, epoch, start)

    def _iterate(self) -> Iterator[Batch]:
        self._passes += 1
        return self._dataset.as_numpy_iterator()

    def fingerprint(self) -> dict[str, Any]:
        """The data set's length and the shapes of its elements."""
        spec = str(self._dataset.element_spec)
        return {"kind": "tf.data.Dataset", "num_batches": self.num_batches, "element_spec": spec}


def _check_dense(spec: Any, name: str) -> None:
    for part in _parts(spec):
        if any(is_a(part, "tensorflow", kind) for kind in ("RaggedTensorSpec", "SparseTensorSpec")):
            raise DataError(
                f"Received {name} (tf.data.Dataset) with an element {part}; expected dense ones. "
                "Make it dense in the data set: .map(lambda x: x.to_tensor()) or "
                ".map(tf.sparse.to_dense), or pad with .padded_batch(...)."
            )


def _parts(spec: Any) -> Iterator[Any]:
    """The leaves of an element's specification."""
    if isinstance(spec, dict):
        spec = tuple(spec.values())
    if isinstance(spec, tuple | list):
        yield from itertools.chain.from_iterable(_parts(part) for part in spec)
    else:
        yield spec
