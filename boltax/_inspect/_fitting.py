"""Ways to make a training step fit into the memory: found by compiling, before anything runs.

    batch in parts, one after the other        the same operations, activations of one part
    layers computed again (remat)              about a third more operations, activations of a layer

The first of these that fits is taken, in the order of the operations that they do, and of equal
ones of the number of parts: the fastest that fits. What divides the batch is left out for a model
with batch statistics, since BatchNorm would normalise by the part.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from boltax._base._options import AUTO, LoopOptions
from boltax._base._trees import common_size
from boltax._base._types import Batch, PyTree
from boltax._build._constructed import Constructed
from boltax._build._twin import stand_in_of
from boltax._inspect._found import scaled, shown_bytes
from boltax._inspect._preflight import preflight
from boltax.data._array_loader import ArrayLoader
from boltax.errors import ConfigurationError, TrainingError
from boltax.models._remat import FULL, has_layers

MOST_SHOWN = 4
"""Numbers of parts that are compiled to be shown, where nothing is to be chosen."""
ROOM = 0.7
"""What a straight line may be off by, before parts are left out without a look."""
SHARE = 0.9
"""The part of a device's memory that is filled: the rest is lost to gaps."""


@dataclass(frozen=True)
class Way:
    """A way to compute a step.

    Attributes:
        microbatches: parts of a batch.
        remat: as in `LoopOptions`.
        needed: bytes on each device; None when the compiler itself found that too much.
        flops: operations of a step.
        fits: whether that is no more than there is.
    """

    microbatches: int
    remat: str | None
    needed: int | None
    flops: int | None
    fits: bool


@dataclass(frozen=True)
class Fitting:
    """Ways to compute a step that were compiled, and which of them is taken. ``print`` it.

    Attributes:
        trainer: the name of the trainer.
        batch_size: examples in a batch.
        memory: bytes that there are on each device; None when nobody knows.
        ways: what was compiled, in that order.
        notes: what was left out, and why.

    Example:
        >>> print(Fitting("Classifier", 64, 10**9, (
        ...     Way(1, None, 2 * 10**9, 10**9, False), Way(2, None, 8 * 10**8, 10**9, True))))
        Classifier, batches of 64, for 1 GB on each device
        <BLANKLINE>
        microbatches  remat  needed  operations
                   1   None    2 GB     1 GFLOP  does not fit
                   2   None  800 MB     1 GFLOP  fits, and is taken
    """

    trainer: str
    batch_size: int
    memory: int | None
    ways: tuple[Way, ...]
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Way | None:
        """The first that fits, which does the fewest operations; None when none does."""
        fitting = [way for way in self.ways if way.fits]
        return min(fitting, key=lambda w: (w.flops or 0, w.microbatches), default=None)

    def __str__(self) -> str:
        rows = [("microbatches", "remat", "needed", "operations", "")]
        rows += [(*_columns(way), self._verdict(way)) for way in self.ways]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([*(t.rjust(w) for t, w in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        ]
        known = "of unknown memory" if self.memory is None else shown_bytes(self.memory)
        head = f"{self.trainer}, batches of {self.batch_size:,}, for {known} on each device"
        return "\n".join([head, "", *lines, *self.notes])

    def _verdict(self, way: Way) -> str:
        if not way.fits:
            return "does not fit"
        return "fits, and is taken" if way is self.chosen else "fits"


def fitting(
    trainer: Constructed, batch: Batch, memory: int | None = None, *, is_whole: bool = False
) -> Fitting:
    """Ways to compute a step, compiled one after the other until one fits.

    Args:
        trainer: it is not changed. What its `LoopOptions` say in numbers stays as it is.
        batch: a batch, or its shapes.
        memory: bytes on each device; by default as `LoopOptions` and the device say.
        is_whole: compile all, also behind the first that fits.
    """
    memory = memory_for(trainer) if memory is None else memory
    notes: list[str] = []
    ways: list[Way] = []
    numbers, remats = _candidates(trainer, batch, notes)
    for remat in remats:
        found: list[Way] = []
        for number in numbers[:MOST_SHOWN] if is_whole else numbers:
            if is_whole or number >= ROOM * _parts_needed(found, memory):
                found.append(_compiled(trainer, batch, number, remat, memory))
            if found[-1].fits and not is_whole:
                break
        ways += found
        if ways[-1].fits and not is_whole:
            break
    return Fitting(trainer._made.name, _size(trainer, batch), memory, tuple(ways), tuple(notes))


def memory_for(trainer: Constructed) -> int | None:
    """The bytes that a run may take on each device; None when nobody has said."""
    if trainer.loop.memory is not None:
        return trainer.loop.memory
    limit = (trainer._made.placement.device.memory_stats() or {}).get("bytes_limit")
    return int(SHARE * limit) if limit else None


def fitted_options(trainer: Constructed, train_loader: Any) -> LoopOptions | None:
    """The options with which a run begins, where memory decides on them, or is bounded.

    Args:
        trainer: before it trains.
        train_loader: as for `train_model`.

    Returns:
        Options with numbers in place of ``"auto"``; None for those that there are.

    Raises:
        ConfigurationError: when no way fits; it says what else would.
    """
    loop = trainer.loop
    if not loop.is_fitted and loop.memory is None:
        return None
    batch, memory = form_of(train_loader, trainer), memory_for(trainer)
    if memory is None:
        trainer._made.progress.note(
            "Memory: nobody says how much there is, so batches stay whole. Write "
            "LoopOptions(memory=...), in bytes."
        )
        return _decided(loop, 1, None)
    found = fitting(trainer, batch, memory)
    if (way := found.chosen) is None:
        raise _does_not_fit(trainer, batch, found)
    if not loop.is_fitted:
        return None
    trainer._made.progress.note(str(found))
    return _decided(loop, way.microbatches, way.remat)


def form_of(train_loader: Any, trainer: Constructed) -> PyTree:
    """The shapes of a batch of training: of a loader in memory its own, else the example's."""
    if not isinstance(train_loader, ArrayLoader):
        return trainer.exmp_input
    size = min(train_loader.batch_size, train_loader.num_examples)
    forms = [jax.ShapeDtypeStruct((size, *shape), dtype) for shape, dtype in train_loader.forms]
    return train_loader.tree(forms)


def _candidates(
    trainer: Constructed, batch: Batch, notes: list[str]
) -> tuple[list[int], list[str | None]]:
    """Numbers of parts and kinds of remat to look at, those with the fewest operations first."""
    loop, adapter = trainer.loop, trainer._made.adapter
    numbers = [loop.parts]
    if loop.microbatches == AUTO:
        if getattr(trainer.state, "batch_stats", None):
            notes.append("batches stay whole: BatchNorm would normalise by the part")
        else:
            numbers = _divisors(batch, trainer._made.placement.parts)
    remats: list[str | None] = [loop.remat]
    if loop.remat == AUTO:
        remats = [None, FULL] if has_layers(adapter) else [None]
        if len(remats) == 1:
            notes.append(f"no remat: boltax does not see the layers of {adapter.name}")
    return numbers, remats


def _parts_needed(found: list[Way], memory: int | None) -> float:
    """The parts from which on a step may fit: what a part takes is a straight line in its size.

    Infinity where even the smallest part would not do, which saves compiling for it.
    """
    known = [(way.microbatches, way.needed) for way in found if way.needed is not None]
    if memory is None or len(known) < 2:
        return 0
    (first, whole), (second, less) = known[:2]
    slope = max(whole - less, 0) / (1 / first - 1 / second)
    left = memory - (whole - slope / first)
    return slope / left if left > 0 else math.inf


def _divisors(batch: Batch, parts: int) -> list[int]:
    """Powers of two into which a batch can be divided, on each of the devices that share it."""
    size = common_size(batch) or 1
    numbers = [1]
    while size % (2 * numbers[-1] * parts) == 0:
        numbers.append(2 * numbers[-1])
    return numbers


def _compiled(
    trainer: Constructed, batch: Batch, microbatches: int, remat: str | None, memory: int | None
) -> Way:
    loop = _decided(trainer.loop, microbatches, remat)
    twin = trainer if loop == trainer.loop else stand_in_of(trainer, is_silent=True, loop=loop)
    try:
        found = preflight(twin, batch)
    except TrainingError:  # the compiler itself found that too much
        return Way(microbatches, remat, None, None, False)
    fits = memory is None or found.needed <= memory
    return Way(microbatches, remat, found.needed, found.flops, fits)


def _decided(loop: LoopOptions, microbatches: int, remat: str | None) -> LoopOptions:
    changes: dict[str, Any] = {"microbatches": microbatches, "remat": remat}
    known: Mapping[str, Any] = {n: v for n, v in changes.items() if getattr(loop, n) == AUTO}
    return replace(loop, **(known if loop.is_fitted else changes))


def _size(trainer: Constructed, batch: Batch) -> int:
    return trainer._made.steps.size_of(batch)


def _columns(way: Way) -> tuple[str, ...]:
    needed = "more" if way.needed is None else shown_bytes(way.needed)
    flops = "" if way.flops is None else f"{scaled(way.flops)}FLOP"
    return str(way.microbatches), str(way.remat), needed, flops


def _does_not_fit(trainer: Constructed, batch: Batch, found: Fitting) -> ConfigurationError:
    """The error for a step that takes more than there is, with what would fit."""
    loop, made = trainer.loop, trainer._made
    wider = replace(loop, microbatches=AUTO, remat=AUTO)
    ways: list[str] = []
    if not loop.is_fitted and made.uses_loss_steps:
        more = fitting(stand_in_of(trainer, is_silent=True, loop=wider), batch, found.memory)
        found = replace(found, ways=more.ways, notes=more.notes)
        if (way := more.chosen) is not None:
            ways.append(f"LoopOptions(microbatches={way.microbatches}, remat={way.remat!r})")
    number = jax.device_count()
    is_divided = made.parallel is not None and made.parallel.fsdp is not None
    if number > 1 and not is_divided:
        ways.append(f'parallel="fsdp" for the {number} devices here')
    ways.append("trainer.find_batch_size(batch, limit=...) for smaller batches")
    bound = shown_bytes(found.memory or 0)
    return ConfigurationError(
        f"Received a step of {made.name} that does not fit into {bound} on each device; expected "
        f"one that does. Write {', or '.join(ways)}.\n\n{found}"
    )
