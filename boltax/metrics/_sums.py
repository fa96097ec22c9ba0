"""Metrics that are sums over the data set and no means: counts, and the confusion matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from boltax._base._trees import describe_leaf
from boltax.errors import MetricsError
from boltax.metrics._totals import IntTotal, host_total, total_of

_KINDS = ("labels", "predictions")


@struct.dataclass
class Sum:
    """A plain sum over all batches, of any shape, exact for integers.

    It is made of the sum over a batch, an array or a number: ``Sum(tokens.sum())``.

    Attributes:
        total: the sum, in two words: see `compute` for its value.

    Example:
        >>> float(Sum(jnp.float32(2.0)).merge(Sum(jnp.float32(3.0))).compute())
        5.0
    """

    total: Any

    def __post_init__(self) -> None:
        """Turns what is added up into its two words."""
        object.__setattr__(self, "total", total_of(self.total, "boltax.metrics.Sum"))

    def merge(self, other: "Sum") -> "Sum":
        """The sum over both."""
        return Sum(self.total + other.total)

    def compute(self) -> Any:
        """The sum, as a NumPy array: int64, or float64."""
        return self.total.value()


@struct.dataclass
class ConfusionMatrix:
    """Counts of examples by true and predicted class; see `confusion_matrix`.

    Attributes:
        counts: ``[num_classes, num_classes]``.
        outside: of the labels and the predictions that are no class, how many there are, the
            smallest and the largest, 0 for none: int32 ``[2, 3]``.
    """

    counts: IntTotal
    outside: jax.Array

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """The counts over both."""
        number = jnp.add(self.outside[..., 0], other.outside[..., 0])
        number = jnp.where(number < 0, 2**31 - 1, number)  # where it is too large for int32
        least = jnp.minimum(self.outside[..., 1], other.outside[..., 1])
        most = jnp.maximum(self.outside[..., 2], other.outside[..., 2])
        outside = jnp.stack([number, least, most], axis=-1)
        return ConfusionMatrix(self.counts + other.counts, outside)

    def compute(self) -> Any:
        """The counts, NumPy int64 ``[num_classes, num_classes]``.

        Raises:
            MetricsError: when a label or a prediction was no class.
        """
        counts = self.counts.value()
        for kind, outside in zip(_KINDS, np.asarray(self.outside), strict=True):
            if outside[0]:
                raise _outside_error(kind, *map(int, outside), classes=counts.shape[0])
        return counts


def confusion_matrix(
    predictions: jax.Array, labels: jax.Array, num_classes: int, *, ignore_label: int | None = None
) -> ConfusionMatrix:
    """A metric that counts examples by true class (rows) and predicted class (columns).

    Args:
        predictions: predicted classes, integers or booleans ``[batch]`` or ``[batch, ...]``, such
            as one for each pixel.
        labels: true classes, of the same shape.
        num_classes: number of classes; they are 0, 1, ... up to that.
        ignore_label: what is labelled so is left out; None for nothing.

    Returns:
        A mergeable metric whose value is an int64 array ``[num_classes, num_classes]``. Labels and
        predictions that are no class are an error when that is computed.

    Raises:
        MetricsError: for arrays that are no classes, or of different shapes.

    Example:
        >>> matrix = confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 1, 0]), num_classes=2)
        >>> matrix.compute().tolist()
        [[1, 1], [0, 1]]
    """
    classes = _checked_count(num_classes)
    arrays = [x if isinstance(x, jax.Array) else np.asarray(x) for x in (predictions, labels)]
    _check_classes(*arrays)
    predicted, true = (jnp.ravel(_as_classes(x)) for x in arrays)
    is_counted = jnp.ones(true.shape, bool) if ignore_label is None else true != ignore_label
    is_outside = [is_counted & ((x < 0) | (x >= classes)) for x in (true, predicted)]
    is_inside = is_counted & ~is_outside[0] & ~is_outside[1]
    # What is not counted goes past the end, and is dropped there.
    places = jnp.where(is_inside, true * classes + predicted, classes * classes)
    counts = jnp.zeros(classes * classes, jnp.int32).at[places].add(1, mode="drop")
    outside = [_outside(*both) for both in zip(is_outside, (true, predicted), strict=True)]
    return ConfusionMatrix(total_of(counts.reshape(classes, classes)), jnp.stack(outside))


def older_matrix(counts: Any) -> ConfusionMatrix:
    """A matrix as it was before it noted what is no class, in NumPy: counts alone."""
    total: Any = host_total(counts)
    outside: Any = np.zeros((*counts.shape[:-2], 2, 3), np.int32)
    return ConfusionMatrix(total, outside)


def _outside(is_outside: jax.Array, classes: jax.Array) -> jax.Array:
    """How many there are, the smallest and the largest; 0 for none."""
    wrong = jnp.where(is_outside, classes, 0)
    number = jnp.sum(is_outside, dtype=jnp.int32)
    return jnp.stack([number, jnp.min(wrong, initial=0), jnp.max(wrong, initial=0)])


def _checked_count(num_classes: Any) -> int:
    is_number = isinstance(num_classes, int | np.integer) and not isinstance(num_classes, bool)
    if is_number and num_classes >= 1:
        return int(num_classes)
    raise MetricsError(
        f"Received num_classes={num_classes!r} for a confusion matrix; expected a positive "
        "integer. Write for instance num_classes=10."
    )


def _check_classes(predictions: Any, labels: Any) -> None:
    kinds = [array.dtype for array in (predictions, labels)]
    are_classes = all(jnp.issubdtype(kind, jnp.integer) or kind == np.bool_ for kind in kinds)
    if are_classes and predictions.shape == labels.shape:
        return
    raise MetricsError(
        f"Received predictions {describe_leaf(predictions)} and labels {describe_leaf(labels)} for "
        "a confusion matrix; expected integers of one shape, the numbers of classes. Write "
        "logits.argmax(-1) for predictions or one-hot labels, labels.astype(int) for whole numbers "
        "in floating point, and labels[:, 0] for an axis of length 1."
    )


def _as_classes(values: Any) -> jax.Array:
    """Classes in int32; a number that it does not hold is none of them there, either."""
    if values.dtype == np.bool_ or jnp.iinfo(values.dtype).bits < 32:
        return jnp.asarray(values).astype(jnp.int32)
    least, most = max(jnp.iinfo(values.dtype).min, -(2**31)), 2**31 - 1
    clip = jnp.clip if isinstance(values, jax.Array) else np.clip
    return jnp.asarray(clip(values, least, most)).astype(jnp.int32)


def _outside_error(kind: str, number: int, least: int, most: int, classes: int) -> MetricsError:
    bounds = [f"the smallest is {least}"] if least < 0 else []
    bounds += [f"the largest is {most}"] if most >= classes else []
    ignored = most if most >= classes else least
    left_out = f", or ignore_label={ignored} to leave such out" if kind == "labels" else ""
    return MetricsError(
        f"Received {number} {kind} that are no class, for a confusion matrix of {classes} classes: "
        f"{', '.join(bounds)}; expected integers from 0 to {classes - 1}. Write num_classes=... "
        f"for all classes that there are{left_out}."
    )
