"""Divides arrays into parts, each example into exactly one."""

import math
from collections.abc import Mapping

import jax
import numpy as np

from boltax._base._trees import num_examples
from boltax._base._types import PyTree
from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError


def split(
    arrays: PyTree, parts: Mapping[str, float | int], *, seed: int = 0, shuffle: bool = True
) -> dict[str, PyTree]:
    """Divides arrays into parts by name; each example is in exactly one.

    Args:
        arrays: a pytree of arrays ``[examples, ...]``.
        parts: name to the number of examples, or to a fraction of them; fractions add up to 1, and
            numbers to that of the examples.
        seed: of the order in which examples are dealt out.
        shuffle: False has the first part be the first examples, as for series in time.

    Returns:
        Name to arrays, as views or copies; in each part in the order of the data.

    Raises:
        ConfigurationError: for parts that do not add up.
        DataError: for arrays of different numbers of examples.

    Example:
        >>> data = {"x": np.arange(10)}
        >>> {name: part["x"].tolist() for name, part in
        ...  split(data, {"train": 0.7, "val": 0.3}, shuffle=False).items()}
        {'train': [0, 1, 2, 3, 4, 5, 6], 'val': [7, 8, 9]}
    """
    arrays = jax.tree.map(np.asarray, arrays)
    examples = num_examples(arrays)
    ends = _ends(parts, examples)
    order = np.random.default_rng(seed).permutation(examples) if shuffle else np.arange(examples)
    found: dict[str, PyTree] = {}
    for (name, end), begin in zip(ends.items(), [0, *ends.values()], strict=False):
        rows = np.sort(order[begin:end])
        found[name] = jax.tree.map(lambda leaf, rows=rows: leaf[rows], arrays)
    return found


def _ends(parts: Mapping[str, float | int], examples: int) -> dict[str, int]:
    """Where each part ends, in the order in which they are dealt out."""
    values = list(parts.values())
    is_counted = bool(values) and all(is_whole(value, 0) for value in values)
    if is_counted and sum(values) == examples:
        ends = np.cumsum(values).tolist()
    elif (
        values
        and not is_counted
        and all(isinstance(value, float) and 0 <= value <= 1 for value in values)
        and math.isclose(math.fsum(values), 1, abs_tol=1e-9)
    ):
        ends = [round(math.fsum(values[: i + 1]) * examples) for i in range(len(values))]
    else:
        raise ConfigurationError(
            f"Received parts={dict(parts)!r} for {examples} examples; expected fractions that add "
            f"up to 1, or numbers that add up to {examples}. Write "
            'split(arrays, {"train": 0.8, "val": 0.1, "test": 0.1}).'
        )
    return dict(zip(parts, ends, strict=True))
