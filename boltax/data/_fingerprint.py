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
    try:
        leaves = [jax.device_get(leaf) for leaf in to_host(batch)[1]]
    except DataError:  # told when it is trained on
        return None
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

    What another version of a loader's library calls otherwise, or has in addition, is no
    difference.

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
        if not _agree(key, saved.get(key), now.get(key))
    ]
    if changes:
        raise DataError(
            f"Received a {name} that is not the one this run was saved with: "
            f"{'; '.join(changes)}. Expected the same data in the same order, so that each example "
            "is seen as often as without the interruption. Give the old loader, or start a new run "
            "from the saved weights: trainer.load_weights(folder)."
        )


CLASSES = ("kind", "dataset", "sampler")
"""Parts that name a class: a library may move it to another module."""
REPRS = ("sampler", "operations", "shard_options")
"""Parts that are a ``repr``: a library may add fields to it."""
PASSING = (
    "has_child",
    "_allow_nones",
    "_record_metrics",
    "_source_name",
    "_transform_cls_name",
    "_transform_name",
)
"""Attributes of Grain's transformations that change with use or version, and decide nothing."""
_TOKEN = re.compile(r"(\w+)\(|(\w+)=([^,()\[\]]+)|<([^<>]*)>")


def short_name(path: Any) -> Any:
    """A class without its module, which differs between versions of a library.

    Example:
        >>> short_name("torch.utils.data.dataloader.DataLoader")
        'DataLoader'
    """
    return path.rpartition(".")[2] if isinstance(path, str) and "(" not in path else path


def _agree(key: str, saved: Any, now: Any) -> bool:
    """Whether a part of two fingerprints says the same, whatever versions wrote them."""
    if saved == now:
        return True
    if key == "steps" and isinstance(saved, list) and isinstance(now, list):
        return len(saved) == len(now) and all(map(_is_same_step, saved, now))
    if not (isinstance(saved, str) and isinstance(now, str)):
        return False
    if key in CLASSES and short_name(saved) == short_name(now):
        return True
    return key in REPRS and _is_same_repr(saved, now)


def _is_same_step(saved: Any, now: Any) -> bool:
    """Whether two of Grain's transformations agree in class, and in the settings that both have."""
    if short_name(saved[0]) != short_name(now[0]) or len(saved) != len(now):
        return False
    one, other = saved[1], now[1]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        shared = (one.keys() & other.keys()) - {*PASSING}
        return all(one[name] == other[name] for name in shared)
    return list(saved[1:]) == list(now[1:])


def _is_same_repr(saved: str, now: str) -> bool:
    """Whether two reprs name the same objects, with equal values of the fields that both have."""
    (ones, rest), (others, other_rest) = _objects_in(saved), _objects_in(now)
    return (
        rest == other_rest
        and [name for name, _ in ones] == [name for name, _ in others]
        and all(
            one[field] == other[field]
            for (_, one), (_, other) in zip(ones, others, strict=True)
            for field in one.keys() & other.keys()
        )
    )


def _objects_in(text: str) -> tuple[list[tuple[str, dict[str, str]]], str]:
    """The objects that a ``repr`` names, with their fields; and what else stands in it."""
    objects: list[tuple[str, dict[str, str]]] = [("", {})]
    for called, field, value, plain in _TOKEN.findall(text):
        if field:
            objects[-1][1][field] = value.strip()
        else:
            objects.append((called or plain, {}))
    return objects, re.sub(r"[\s,()\[\]]", "", _TOKEN.sub("", text))
