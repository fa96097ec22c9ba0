"""The largest batch size with which training fits, found by compiling for a few sizes.

    find_batch_size(trainer, next(iter(train_loader)))

Nothing is executed and nothing runs out of memory: see `_preflight`, which asks the compiler.
"""

import math
from collections.abc import Callable
from typing import Any

from boltax._base._types import Batch
from boltax._build._arguments import check_positive
from boltax._build._constructed import Constructed
from boltax._inspect._found import shown_bytes
from boltax._inspect._preflight import Subject, cost_of, memory_of
from boltax.errors import ConfigurationError

SHARE = 0.9
"""The part of the device's memory that is filled: the rest is lost to gaps."""
_EXACT_BELOW = 16  # smaller batches are searched one by one, larger ones in steps of 8 or 5 %
_BISECT_FROM = 8  # programs compiled; by then the memory is no straight line


def find_batch_size(
    trainer: Constructed, batch: Batch, *, limit: int | None = None, largest: int = 65536
) -> int:
    """The largest batch size with which training fits into the memory.

    Found by compiling for a few sizes, and not by running out of memory. The first axis of all of
    the batch's arrays is taken for that of the examples. Below 16 the answer is exact, above it is
    a multiple of 8 and at most 5 % too small.

    Args:
        trainer: it is not changed.
        batch: a batch of any size, or its shapes.
        limit: bytes that may be used; by default 90 % of the device's memory.
        largest: the largest size to consider.

    Raises:
        ConfigurationError: when not even one example fits, when nobody knows how much memory there
            is, or when the trainer does not compile its steps.
        DataError: for a batch without arrays, or whose arrays disagree on their first axis.
    """
    check_positive(limit=limit, largest=largest)
    subject = Subject.of(trainer, batch, None)
    if limit is None:
        limit = _default_limit(subject.device)

    def needed(size: int) -> float:
        sized = subject.sized(size)
        cost = cost_of(sized)
        return math.inf if cost is None else cost.peak + sized.ahead + sized.saving

    placement = trainer._made.placement
    # several devices share a batch evenly
    unit = 1 if placement.is_one else placement.parts * trainer.loop.parts
    start, most = min(subject.batch_size, largest) // unit or 1, largest // unit or 1
    count, least = largest_within(lambda count: needed(count * unit), limit, start, most)
    size = count * unit
    if not size:
        raise ConfigurationError(
            f"Received a limit of {shown_bytes(limit)} for {trainer._made.name}, which needs "
            f"{shown_bytes(least)} for a batch of {'one example' if unit == 1 else unit}, "
            f"{shown_bytes(subject.saving)} of that for a copy of the state; expected more memory "
            "or a smaller step. Use a smaller model, jax.checkpoint around its layers, or "
            "parameters and activations in bfloat16."
        )
    return size


def largest_within(
    needed: Callable[[int], float], limit: float, start: int, largest: int
) -> tuple[int, float]:
    """The largest size that needs no more than a limit, where more is needed for larger ones.

    Memory is nearly a straight line over the batch size, so that a line through the two nearest
    points shows where to look next, and a few looks are enough.

    Args:
        needed: bytes by size; asked once for each.
        limit: bytes.
        start: the size to begin with.
        largest: the largest size to consider.

    Returns:
        The size, 0 when there is none, and the bytes of the smallest size that was looked at.

    Example:
        >>> largest_within(lambda size: 1000 + 12 * size, limit=5000, start=32, largest=65536)
        (328, 1384)
    """
    known: dict[int, float] = {}
    size, fitting, too_large = start, 0, largest + 1
    while too_large - fitting > _resolution(fitting):
        known[size] = needed(size)
        if known[size] <= limit:
            fitting = size
        else:
            too_large = size
        size = _next_size(known, limit, fitting, too_large)
    return fitting, known[min(known)]


def _resolution(size: int) -> int:
    return 1 if size < _EXACT_BELOW else max(8, size // 20)


def _next_size(known: dict[int, float], limit: float, fitting: int, too_large: int) -> int:
    """Where to look next: above what fits, and below what does not."""
    guess = _on_a_line(known, limit)
    if guess is None or (fitting and len(known) >= _BISECT_FROM):
        guess = (fitting + too_large) // 2 if too_large in known else 2 * fitting
    guess = min(max(guess, fitting + _resolution(fitting)), too_large - 1)
    if guess >= _EXACT_BELOW and guess // 8 * 8 > fitting:
        guess = guess // 8 * 8
    return guess


def _on_a_line(known: dict[int, float], limit: float) -> int | None:
    """The size at which a line through the two points that are nearest to the limit meets it."""
    finite = [point for point in known.items() if math.isfinite(point[1])]
    nearest = sorted(finite, key=lambda point: abs(point[1] - limit))[:2]
    if len(nearest) < 2:
        return None
    (left, low), (right, high) = sorted(nearest)
    slope = (high - low) / (right - left)
    return int(left + (limit - low) / slope) if slope > 0 else None


def _default_limit(device: Any) -> int:
    memory = memory_of(device)
    if memory is None:
        raise ConfigurationError(
            f"Received no limit, for {device.device_kind} does not tell its memory; expected a "
            "number of bytes. Write trainer.find_batch_size(batch, limit=16 * 10**9)."
        )
    return int(SHARE * memory)
