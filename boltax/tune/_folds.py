"""How data are divided into folds: each example is held out exactly once."""

from typing import Any

import numpy as np

from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError, DataError


def divided(
    examples: int, folds: int, *, seed: int = 0, stratify: Any = None, groups: Any = None
) -> tuple[np.ndarray[Any, Any], ...]:
    """The indices of the examples that each fold holds out, in increasing order.

    Args:
        examples: how many there are.
        folds: how many parts, whose sizes differ by one at most, without `groups`.
        seed: of the order in which they are dealt out.
        stratify: a class for each example, ``[examples]``; each fold gets its share of each.
        groups: a group for each example, ``[examples]``; one group is never in two folds.

    Raises:
        ConfigurationError: for a number of folds that cannot be, or both ways of dividing.
        DataError: for classes or groups of another number of examples.

    Example:
        >>> [part.tolist() for part in divided(5, 2, stratify=[0, 0, 0, 0, 1])]
        [[0, 2, 4], [1, 3]]
    """
    if not is_whole(folds, 2) or folds > examples:
        raise ConfigurationError(
            f"Received folds={folds!r} for {examples} examples; expected a whole number from 2 to "
            "that of the examples. Write folds=5."
        )
    if stratify is not None and groups is not None:
        raise ConfigurationError(
            "Received stratify and groups; expected one of them, since a group goes into one fold "
            "whatever its classes are. Leave out stratify."
        )
    order = np.random.default_rng(seed).permutation(examples)
    if groups is not None:
        fold_of = _by_group(_labels("groups", groups, examples), order, folds)
    else:
        if stratify is not None:  # all of one class behind each other, dealt out in turn
            labels = _labels("stratify", stratify, examples)
            order = order[np.argsort(labels[order], kind="stable")]
        fold_of = np.empty(examples, np.int64)
        fold_of[order] = np.arange(examples) % folds
    return tuple(np.flatnonzero(fold_of == fold) for fold in range(folds))


def _labels(name: str, values: Any, examples: int) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.shape != (examples,):
        raise DataError(
            f"Received {name} of shape {list(array.shape)} for {examples} examples; expected one "
            f"value for each, [{examples}]. Write {name}=labels."
        )
    return np.unique(array, return_inverse=True)[1].reshape(-1)


def _by_group(
    groups: np.ndarray[Any, Any], order: np.ndarray[Any, Any], folds: int
) -> np.ndarray[Any, Any]:
    """Deals out groups, the largest first, each to the fold with the fewest examples."""
    sizes = np.bincount(groups)
    if len(sizes) < folds:
        raise DataError(
            f"Received {len(sizes)} groups for {folds} folds; expected at least one for each. "
            f"Write folds={max(len(sizes), 2)}."
        )
    shuffled = groups[order][np.sort(np.unique(groups[order], return_index=True)[1])]
    held, fold_of = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for group in sorted(shuffled, key=lambda group: -sizes[group]):
        fold_of[group] = held.argmin()
        held[fold_of[group]] += sizes[group]
    return fold_of[groups]
