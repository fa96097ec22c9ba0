"""Metrics that are sums over the data set and no means: counts, and the confusion matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Sum:
    """A plain sum over all batches, of any shape.

    Example:
        >>> float(Sum(jnp.float32(2.0)).merge(Sum(jnp.float32(3.0))).compute())
        5.0
    """

    total: jax.Array

    def merge(self, other: "Sum") -> "Sum":
        """The sum over both."""
        return Sum(self.total + other.total)

    def compute(self) -> Any:
        """The total, as a NumPy array."""
        return np.asarray(self.total)


def confusion_matrix(predictions: jax.Array, labels: jax.Array, num_classes: int) -> Sum:
    """A metric that counts examples by true class (rows) and predicted class (columns).

    Args:
        predictions: predicted classes, integers ``[batch]``.
        labels: true classes, integers ``[batch]``.
        num_classes: number of classes.

    Returns:
        A mergeable metric whose value is an int32 array ``[num_classes, num_classes]``.

    Example:
        >>> matrix = confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 1, 0]), num_classes=2)
        >>> matrix.compute().tolist()
        [[1, 1], [0, 1]]
    """
    counts = jnp.zeros((num_classes, num_classes), jnp.int32)
    return Sum(counts.at[labels, predictions].add(1))
