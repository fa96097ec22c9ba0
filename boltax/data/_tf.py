"""A `tf.data.Dataset` as a source.

May not import tensorflow: a program that has a data set has done so.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from boltax._types import Batch, Cursor
from boltax.data._arrays import is_a
from boltax.data._iterables import length, numbered
from boltax.errors import DataError


class TfSource:
    """A `tf.data.Dataset` whose elements are batches; each epoch is one iteration.

    Its arrays are views of TensorFlow's memory, which nobody writes to.

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
        self._dataset = dataset

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; the first `start` batches are read and dropped.

        The order is TensorFlow's own: give `shuffle` a seed to have it repeat.
        """
        batches = itertools.islice(self._dataset.as_numpy_iterator(), start, None)
        return numbered(batches, epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """Its length and the shapes of its elements."""
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
