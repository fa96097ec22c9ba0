"""Batches on the device ahead of their use, each with its own cursor.

May not show how far it has read: a cursor comes with its batch, and with no other.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from boltax._types import Batch, Cursor


def prefetch_to_device(
    stream: Iterable[tuple[Batch, Cursor]], *, depth: int = 2, copy: bool = True
) -> Iterator[tuple[Batch, Cursor, int]]:
    """Puts batches on the device while those before them are in use.

    Transfers are asynchronous and there is no thread: while a batch is in use, up to `depth` later
    ones are on their way. They have been drawn from the stream, so cut an epoch to its length
    before: ``prefetch_to_device(itertools.islice(source.epoch(1), steps))``.

    Args:
        stream: pairs of a batch and its cursor, as ``Source.epoch`` gives them.
        depth: batches that are put on the device ahead of their use.
        copy: whether host arrays are copied first. JAX may use the memory of a NumPy array as the
            device's own, or read it later, so only a source that gives new arrays each time
            (``source.owns_batches``) goes without.

    Yields:
        The batch on the device, the cursor that says that it has been consumed, and its number of
        examples.

    Example:
        >>> import numpy as np
        >>> from boltax.data._prefetch import prefetch_to_device
        >>> from boltax.data import ArrayLoader
        >>> source = ArrayLoader(np.arange(3), batch_size=2)
        >>> [(cursor["batch"], n) for _, cursor, n in prefetch_to_device(source.epoch(1))]
        [(1, 2), (2, 1)]
    """
    items = iter(stream)
    ahead: deque[tuple[Batch, Cursor, int]] = deque()
    _put(items, ahead, 1, copy)  # the first step need not wait for the second batch
    while ahead:
        yield ahead.popleft()
        _put(items, ahead, depth + 1, copy)


def _put(
    items: Iterator[tuple[Batch, Cursor]],
    ahead: deque[tuple[Batch, Cursor, int]],
    wanted: int,
    copy: bool,
) -> None:
    for batch, cursor in itertools.islice(items, wanted - len(ahead)):
        leaves, treedef = jax.tree.flatten(batch)
        size = int(leaves[0].shape[0])
        if copy:
            # device_put(..., may_alias=False) does not prevent this for NumPy arrays
            leaves = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        ahead.append((jax.tree.unflatten(treedef, jax.device_put(leaves)), cursor, size))
