"""What decides which batches a loader gives, compared: a run goes on with equal data only."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from boltax.data._batches import to_host
from boltax.errors import DataError

MOST_BYTES = 64 * 2**20
"""Bytes of a data set that its checksum looks at: evenly strided examples."""


def checksum(leaves: Iterable[Any]) -> str:
    """A checksum over arrays ``[examples, ...]``: all of them, or a sample where they are large."""
    total = hashlib.blake2b(digest_size=16)
    leaves = [np.asarray(leaf) for leaf in leaves]
    size = sum(leaf.nbytes for leaf in leaves)
    stride = max(1, -(-size // MOST_BYTES))
    for leaf in leaves:
        total.update(f"{leaf.dtype} {leaf.shape}".encode())
        sample = leaf[::stride] if leaf.ndim else leaf
        total.update(np.ascontiguousarray(sample).view(np.uint8).data if sample.size else b"")
    return total.hexdigest()


def batch_checksum(read: Callable[[], Any]) -> str | None:
    """A checksum over one batch; None where it is not made of arrays of numbers.

    Args:
        read: gives the batch. It is called twice: a batch that is another one each time, as one
            with random changes is, says nothing about the data set, and has None as well.
    """
    first, again = (_batch_checksum(read()) for _ in range(2))
    return first if first == again else None


def _batch_checksum(batch: Any) -> str | None:
    leaves = [jax.device_get(leaf) for leaf in to_host(batch)[1]]
    is_known = all(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc" for leaf in leaves)
    return checksum(leaves) if is_known else None


def without_addresses(text: Any) -> str:
    """A ``repr`` without the addresses of objects, which are others in each process.

    Example:
        >>> without_addresses("<Images object at 0x7f39ce747ce0>")
        '<Images object>'
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(text))


def check_fingerprint(saved: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Refuses to go on with other data than those that a run was saved with.

    Args:
        saved: the loader's fingerprint in the checkpoint.
        now: that of the loader that is given.
        name: the loader, as messages name it.

    Raises:
        DataError: naming every difference.

    Example:
        >>> check_fingerprint({"batch_size": 32}, {"batch_size": 64}, "train_loader")
        Traceback (most recent call last):
        boltax.errors.DataError: Received a train_loader that is not the one this run was saved
        with: batch_size was 32 and is 64. ...
    """
    changes = [
        f"{key} was {saved.get(key)!r} and is {now.get(key)!r}"
        for key in {**saved, **now}
        if saved.get(key) != now.get(key)
    ]
    if changes:
        raise DataError(
            f"Received a {name} that is not the one this run was saved with: "
            f"{'; '.join(changes)}. Expected the same data in the same order, so that each example "
            "is seen as often as without the interruption. Give the old loader, or start a new run "
            "from the saved weights: trainer.load_weights(folder)."
        )
