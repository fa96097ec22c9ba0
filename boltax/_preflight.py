"""What a training step needs, from shapes alone: memory, operations, and the largest batch size.

    print(preflight(trainer, next(iter(train_loader))))
    find_batch_size(trainer, next(iter(train_loader)))

The very program that training runs is compiled, and asked for its memory. Nothing is executed, and
nothing of the trainer changes: its state goes in as shapes, and an optimizer that it does not have
yet is made as shapes on a copy of the trainer.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from boltax._arguments import check_positive
from boltax._chunks import Mode
from boltax._flops import count_flops, peak_of
from boltax._fused import MOST_BYTES, MOST_STEPS, UNROLLED, FusedStep
from boltax._progress._progress import Progress
from boltax._save import state_tree
from boltax._setup import prepare_process
from boltax._state import params_of
from boltax._steps import Training
from boltax._trees import num_examples, tree_bytes
from boltax._types import Batch, PyTree
from boltax.data._batches import to_host
from boltax.errors import ConfigurationError, TrainingError, noting
from boltax.metrics._accumulate import start

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

SHARE = 0.9
"""The part of the device's memory that `find_batch_size` fills: the rest is lost to gaps."""
_MANY_STEPS = 10**6  # for schedules, when the number is not given; the memory does not depend on it
_EXACT_BELOW = 16  # smaller batches are searched one by one, larger ones in steps of 8 or 5 %
_BISECT_FROM = 8  # programs compiled; by then the memory is no straight line


class Arrays(NamedTuple):
    """The size of a tree of arrays.

    Attributes:
        count: numbers in it.
        nbytes: bytes in it.
    """

    count: int
    nbytes: int


@dataclass(frozen=True)
class Preflight:
    """What training with batches of one size needs. ``print`` it for a table.

    Attributes:
        trainer: the name of the trainer.
        batch_size: examples in a batch.
        parameters: the model's parameters.
        collections: its other variables, BatchNorm statistics say.
        optimizer: the optimizer's state.
        batch: one batch.
        temporaries: bytes of activations, gradients and workspace.
        peak: bytes while a step runs: arguments, results that take no argument's memory, and
            temporaries. The old and the new state share their memory and count once.
        ahead: bytes of the batches that wait for their step, at most.
        saving: bytes of the copy of the state that is written to disk while training goes on.
        flops: floating point operations of matrix products and convolutions in a step.
        has_open_loops: whether loops of unknown length counted as one round in `flops`.
        compile_seconds: what it took to trace and compile the step, or to find it in the cache.
        device: the device's kind.
        memory: its bytes, of a CPU those that are available now; None when unknown.
        peak_flops: the operations that the device can do in a second; None when unknown.

    Example:
        >>> found = Preflight(
        ...     "Classifier", 32, Arrays(1000, 4000), Arrays(0, 0), Arrays(2000, 8000),
        ...     Arrays(320, 1280), temporaries=5000, peak=18_300, ahead=2560, saving=12_012,
        ...     flops=192_000, has_open_loops=False, compile_seconds=1.5, device="cpu",
        ...     memory=8_000_000_000, peak_flops=None,
        ... )
        >>> found.needed, found.fits, found.flops_per_example
        (32872, True, 6000.0)
    """

    trainer: str
    batch_size: int
    parameters: Arrays
    collections: Arrays
    optimizer: Arrays
    batch: Arrays
    temporaries: int
    peak: int
    ahead: int
    saving: int
    flops: int
    has_open_loops: bool
    compile_seconds: float
    device: str
    memory: int | None
    peak_flops: float | None

    @property
    def needed(self) -> int:
        """Bytes that training takes: the peak, batches that wait, and the copy for saving."""
        return self.peak + self.ahead + self.saving

    @property
    def fits(self) -> bool | None:
        """Whether that is no more than the device has; None when nobody knows."""
        return None if self.memory is None else self.needed <= self.memory

    @property
    def flops_per_example(self) -> float:
        """Operations of a step for each example."""
        return self.flops / self.batch_size

    def __str__(self) -> str:
        return _table(self)


def preflight(trainer: "TrainerModule", batch: Batch, total_steps: int | None = None) -> Preflight:
    """What a training step needs, before there is one: memory, operations, and whether it fits.

    Compiles the step and runs nothing, so it also answers for what does not fit.

    Args:
        trainer: it is not changed.
        batch: a batch, or its shapes: a pytree of arrays or of `jax.ShapeDtypeStruct`.
        total_steps: as known to the schedule of the learning rate; it changes no number here.

    Raises:
        ConfigurationError: when the trainer does not compile its steps, or not by boltax.
        DataError: for a batch without arrays, or whose arrays disagree on their first axis.
        TrainingError: when the compiler itself finds that the step does not fit.
    """
    check_positive(total_steps=total_steps)
    subject = _Subject.of(trainer, batch, total_steps)
    cost = _cost(subject)
    if cost is None:
        raise TrainingError(
            f"Received batches of {subject.batch_size}, for which the compiler finds the memory of "
            f"{subject.device.device_kind} too small; expected a step that fits. Write "
            "trainer.find_batch_size(batch) for the largest batches that do."
        )
    counted = count_flops(trainer.steps.train_step, subject.state, subject.batch)
    state: Any = subject.state
    others = (getattr(state, "batch_stats", None), getattr(state, "collections", None))
    return Preflight(
        trainer=trainer.name,
        batch_size=subject.batch_size,
        parameters=_arrays(params_of(state)),
        collections=_arrays(others),
        optimizer=_arrays(getattr(state, "opt_state", None)),
        batch=_arrays(subject.batch),
        temporaries=cost.temporaries,
        peak=cost.peak,
        ahead=subject.ahead,
        saving=subject.saving,
        flops=counted.total,
        has_open_loops=counted.open_loops > 0,
        compile_seconds=cost.seconds,
        device=subject.device.device_kind,
        memory=_memory_of(subject.device),
        peak_flops=peak_of(subject.device),
    )


def find_batch_size(
    trainer: "TrainerModule", batch: Batch, *, limit: int | None = None, largest: int = 65536
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
    subject = _Subject.of(trainer, batch, None)
    if limit is None:
        limit = _default_limit(subject.device)

    def needed(size: int) -> float:
        sized = subject.sized(size)
        cost = _cost(sized)
        return math.inf if cost is None else cost.peak + sized.ahead + sized.saving

    size, least = largest_within(needed, limit, min(subject.batch_size, largest), largest)
    if not size:
        raise ConfigurationError(
            f"Received a limit of {shown_bytes(limit)} for {trainer.name}, which needs "
            f"{shown_bytes(least)} for a batch of one example, {shown_bytes(subject.saving)} of "
            "that for a copy of the state; expected more memory or a smaller step. Use a smaller "
            "model, jax.checkpoint around its layers, or parameters and activations in bfloat16."
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


@dataclass(frozen=True)
class _Subject:
    """A trainer with the shapes of a state that has an optimizer, and those of a batch."""

    trainer: "TrainerModule"
    step: FusedStep
    state: PyTree
    batch: PyTree

    @classmethod
    def of(cls, trainer: "TrainerModule", batch: Batch, total_steps: int | None) -> "_Subject":
        step = _compiled_step(trainer)
        batch = to_host(batch)[0]
        num_examples(batch)
        prepare_process(trainer)
        return cls(trainer, step, _state_shapes(trainer, total_steps), _shapes(batch))

    def sized(self, size: int) -> "_Subject":
        """With batches of another size."""
        batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), self.batch
        )
        return _Subject(self.trainer, self.step, self.state, batch)

    @property
    def batch_size(self) -> int:
        return num_examples(self.batch)

    @cached_property
    def device(self) -> Any:
        arrays = (x for x in jax.tree.leaves(self.trainer.state) if isinstance(x, jax.Array))
        return next((next(iter(x.devices())) for x in arrays), None) or jax.local_devices()[0]

    @property
    def ahead(self) -> int:
        """Bytes of waiting batches: single ones, or the rest of two dispatches of several."""
        loop, one = self.trainer.loop, max(tree_bytes(self.batch), 1)
        if loop.steps_per_execution == "auto":
            steps = max(min(MOST_STEPS, MOST_BYTES // one), UNROLLED)
        else:
            steps = int(loop.steps_per_execution)
        return one * max(loop.prefetch, 2 * steps - 1 if steps > 1 else 0)

    @property
    def saving(self) -> int:
        """Bytes of the copy that is written: of the whole state, or of the model only."""
        state: Any = self.state
        if self.trainer.checkpoint.keep_last:
            return tree_bytes(state_tree(state))
        others = (getattr(state, "batch_stats", None), getattr(state, "collections", None))
        return tree_bytes((params_of(state), others))


class _Cost(NamedTuple):
    peak: int
    temporaries: int
    seconds: float


def _cost(subject: _Subject) -> _Cost | None:
    """The memory of the compiled step; None when the compiler finds that too small."""
    state, batch, size = subject.state, subject.batch, subject.batch_size
    train_step = subject.trainer.steps.train_step
    metrics = jax.eval_shape(lambda s, b: start(train_step(s, b)[1], size), state, batch)
    began = time.perf_counter()
    try:
        with subject.trainer.progress.status(f"compiling the train step for batches of {size}"):
            program = subject.step.programs[Mode.SINGLE]
            compiled = program.lower((), Training(state, metrics), batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    seconds, memory = time.perf_counter() - began, compiled.memory_analysis()
    if memory is None:
        raise TrainingError(
            f"Received a step for {subject.device.device_kind}, whose compiler does not tell the "
            "memory of a program; expected a CPU, GPU or TPU. Run it on one of these."
        )
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = int(memory.temp_size_in_bytes)
    return _Cost(int(memory.argument_size_in_bytes + results) + temporaries, temporaries, seconds)


def _compiled_step(trainer: "TrainerModule") -> FusedStep:
    step = trainer.steps.train
    if isinstance(step, FusedStep):
        return step
    cause = "debug=True" if trainer.debug else "a create_jitted_functions of its own"
    raise ConfigurationError(
        f"Received {trainer.name} with {cause}, whose steps boltax does not compile; expected "
        "steps from loss_function or create_functions, compiled by boltax. For the preflight "
        f"make a trainer without {cause}."
    )


def _state_shapes(trainer: "TrainerModule", total_steps: int | None) -> PyTree:
    """The shapes of the state, with the optimizer that training would begin with."""
    if getattr(trainer.state, "tx", trainer) is not None:
        return _shapes(trainer.state)
    twin = object.__new__(type(trainer))
    twin.__dict__.update(trainer.__dict__, progress=Progress(enabled=False), run=None)

    def create(state: Any) -> Any:
        twin.state = state
        twin.init_optimizer(1, total_steps or _MANY_STEPS)
        return twin.state

    with noting(f"{trainer.name}.init_optimizer", "preflight, on shapes instead of arrays"):
        return jax.eval_shape(create, _shapes(trainer.state))


def _shapes(tree: PyTree) -> PyTree:
    """The shapes and dtypes that arrays have on the device."""

    def known(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct) or jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.extended
        ):
            return leaf
        return leaf.update(dtype=jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.eval_shape(lambda tree: tree, jax.tree.map(known, tree))


def _arrays(tree: PyTree) -> Arrays:
    return Arrays(sum(leaf.size for leaf in jax.tree.leaves(tree)), tree_bytes(tree))


def _default_limit(device: Any) -> int:
    memory = _memory_of(device)
    if memory is None:
        raise ConfigurationError(
            f"Received no limit, for {device.device_kind} does not tell its memory; expected a "
            "number of bytes. Write trainer.find_batch_size(batch, limit=16 * 10**9)."
        )
    return int(SHARE * memory)


def _memory_of(device: Any) -> int | None:
    """The memory that a device has for this process, or what a CPU has left."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return int(limit)
    return _available_memory() if device.platform == "cpu" else None


def _available_memory() -> int | None:
    """What the system can still give without swapping, and what it grants this process."""
    found: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # that of a container; "max" when there is none
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def _table(found: Preflight) -> str:
    """The whole of it as text, in columns."""
    named = {
        "parameters": found.parameters,
        "other collections": found.collections,
        "optimizer state": found.optimizer,
        "batch": found.batch,
    }
    rest = found.peak - found.temporaries - sum(arrays.nbytes for arrays in named.values())
    rows = [(name, f"{arrays.count:,}", arrays.nbytes) for name, arrays in named.items()]
    rows += [
        ("activations and workspace", "", found.temporaries),
        ("random keys, metrics, counters", "", max(rest, 0)),
        ("peak of a step", "", found.peak),
        ("batches that wait, at most", "", found.ahead),
        ("copy of the state for saving", "", found.saving),
        ("needed", "", found.needed),
    ]
    shown = [("", "numbers", "memory"), *((a, b, shown_bytes(c)) for a, b, c in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in shown]
    head = f"{found.trainer}, batches of {found.batch_size:,}, on {found.device}"
    return "\n".join([head, "", *lines, "", _verdict(found), *_operations(found)])


def _verdict(found: Preflight) -> str:
    if found.memory is None:
        return "fits: unknown, as the device does not tell its memory"
    share = 100 * found.needed / max(found.memory, 1)
    whole = f"{share:.2g} % of {shown_bytes(found.memory)}"
    return f"fits: {whole}" if found.fits else f"DOES NOT FIT: {whole}"


def _operations(found: Preflight) -> list[str]:
    least = "at least " if found.has_open_loops else ""
    lines = [
        f"a step: {least}{_scaled(found.flops)}FLOP in matrix products and convolutions, "
        f"{_scaled(found.flops_per_example)}FLOP an example"
    ]
    if found.has_open_loops:
        lines.append("  loops whose length only the run will show count as one round")
    if found.peak_flops:
        fastest = 1e3 * found.flops / found.peak_flops
        peak = f"{_scaled(found.peak_flops)}FLOP/s in half precision"
        lines.append(f"  {fastest:.3g} ms at the device's peak of {peak}")
    return [*lines, f"compiled in {found.compile_seconds:.1f} s"]


def shown_bytes(number: float) -> str:
    """Bytes for people.

    Example:
        >>> shown_bytes(12_300_000)
        '12.3 MB'
    """
    return f"{_scaled(number)}B"


def _scaled(number: float) -> str:
    """Three digits and a prefix: ``12.3 G``."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
