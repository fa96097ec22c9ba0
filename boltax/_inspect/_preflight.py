"""What a training step needs, from shapes alone: memory, operations, and whether it fits.

    print(preflight(trainer, next(iter(train_loader))))

The very program that training runs is compiled, and asked for its memory. Nothing is executed, and
nothing of the trainer changes: its state goes in as shapes, and an optimizer that it does not have
yet is made as shapes on a copy of the trainer.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from boltax._base._chunks import Mode
from boltax._base._trees import num_examples, tree_bytes
from boltax._base._types import Batch, PyTree
from boltax._build._arguments import check_positive
from boltax._build._constructed import Constructed
from boltax._build._twin import twin_of
from boltax._inspect._found import Arrays, Preflight
from boltax._loop._saving import state_tree
from boltax._process._compilation_cache import enable_compilation_cache
from boltax._step._bodies import Training, batch_metrics_of
from boltax._step._flops import count_flops, peak_of
from boltax._step._fused import MOST_BYTES, MOST_STEPS, UNROLLED, FusedStep
from boltax._step._state import params_of, variables_of
from boltax.data._batches import to_host
from boltax.errors import ConfigurationError, TrainingError, noting
from boltax.parallel._collectives import collectives_in
from boltax.parallel._table import bytes_on_each

_MANY_STEPS = 10**6  # for schedules, when the number is not given; the memory does not depend on it


def preflight(trainer: Constructed, batch: Batch, total_steps: int | None = None) -> Preflight:
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
    subject = Subject.of(trainer, batch, total_steps)
    cost = cost_of(subject)
    if cost is None:
        raise TrainingError(
            f"Received batches of {subject.batch_size}, for which the compiler finds the memory of "
            f"{subject.device.device_kind} too small; expected a step that fits. Write "
            "trainer.find_batch_size(batch) for the largest batches that do."
        )
    counted = count_flops(trainer._made.steps.train_step, subject.state, subject.batch)
    state: Any = subject.state
    others = (getattr(state, "batch_stats", None), getattr(state, "collections", None))
    return Preflight(
        trainer=trainer._made.name,
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
        memory=memory_of(subject.device),
        peak_flops=peak_of(subject.device),
        devices=trainer._made.placement.num_devices,
        collectives=cost.collectives,
    )


def sized(batch: Batch, size: int) -> PyTree:
    """The shapes of a batch with so many examples."""
    num_examples(batch)  # a graph cannot be had in another size

    def one(leaf: Any) -> Any:
        shape = (size, *leaf.shape[1:]) if leaf.shape else ()
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(one, batch)


@dataclass(frozen=True)
class Subject:
    """A trainer with the shapes of a state that has an optimizer, and those of a batch."""

    trainer: Constructed
    step: FusedStep
    state: PyTree
    batch: PyTree

    @classmethod
    def of(cls, trainer: Constructed, batch: Batch, total_steps: int | None) -> "Subject":
        step = _compiled_step(trainer)
        batch = to_host(batch)[0]
        trainer._made.steps.size_of(batch)
        enable_compilation_cache()
        batch = _shapes(batch)
        return cls(trainer, step, _state_shapes(trainer, total_steps), _placed(trainer, batch))

    def sized(self, size: int) -> "Subject":
        """With batches of another size."""
        batch = _placed(self.trainer, sized(self.batch, size))
        return Subject(self.trainer, self.step, self.state, batch)

    @property
    def batch_size(self) -> int:
        return self.trainer._made.steps.size_of(self.batch)

    @cached_property
    def device(self) -> Any:
        arrays = (x for x in jax.tree.leaves(self.trainer.state) if isinstance(x, jax.Array))
        held = next((next(iter(x.devices())) for x in arrays), None)
        return held or self.trainer._made.placement.device

    @property
    def ahead(self) -> int:
        """Bytes of waiting batches: single ones, or the rest of two dispatches of several."""
        loop, one = self.trainer.loop, max(tree_bytes(self.batch), 1)
        if loop.steps_per_execution == "auto":
            steps = max(min(MOST_STEPS, MOST_BYTES // one), UNROLLED)
        else:
            steps = int(loop.steps_per_execution)
        return bytes_on_each(self.batch) * max(loop.prefetch, 2 * steps - 1 if steps > 1 else 0)

    @property
    def saving(self) -> int:
        """Bytes of the copy that is written: of the whole state, or of the model only."""
        state: Any = self.state
        if self.trainer.checkpoint.keep_last:
            return bytes_on_each(state_tree(state))
        others = (getattr(state, "batch_stats", None), getattr(state, "collections", None))
        return bytes_on_each((params_of(state), others))


class Cost(NamedTuple):
    peak: int
    temporaries: int
    seconds: float
    collectives: dict[str, int]


def cost_of(subject: Subject) -> Cost | None:
    """The memory of the compiled step; None when the compiler finds that too small."""
    state, batch, size = subject.state, subject.batch, subject.batch_size
    train_step = subject.trainer._made.steps.train_step
    count = subject.trainer._made.size_of
    metrics = jax.eval_shape(partial(batch_metrics_of, train_step, True, count), state, batch)
    began = time.perf_counter()
    try:
        with subject.trainer._made.progress.status(
            f"compiling the train step for batches of {size}"
        ):
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
    peak = int(memory.argument_size_in_bytes + results) + temporaries
    is_alone = subject.trainer._made.placement.is_one
    sent = {} if is_alone else collectives_in(compiled.as_text())
    return Cost(peak, temporaries, seconds, sent)


def _compiled_step(trainer: Constructed) -> FusedStep:
    step = trainer._made.steps.train
    if isinstance(step, FusedStep):
        return step
    cause = "debug=True" if trainer.debug else "a create_jitted_functions of its own"
    raise ConfigurationError(
        f"Received {trainer._made.name} with {cause}, whose steps boltax does not compile; "
        "expected steps from loss_function or create_functions, compiled by boltax. For the "
        f"preflight make a trainer without {cause}."
    )


def _state_shapes(trainer: Constructed, total_steps: int | None) -> PyTree:
    """The shapes of the state, with the optimizer that training would begin with."""
    placement = trainer._made.placement
    if getattr(trainer.state, "tx", trainer) is not None:
        return _shapes(trainer.state) if placement.is_one else placement.forms(trainer.state)
    twin = twin_of(trainer)

    def create(state: Any) -> Any:
        twin.state = state
        twin.init_optimizer(1, total_steps or _MANY_STEPS)
        return twin.state

    with noting(f"{trainer._made.name}.init_optimizer", "preflight, on shapes instead of arrays"):
        shapes = jax.eval_shape(create, _shapes(trainer.state))
    if placement.is_one:
        return shapes
    return _with_places(shapes, placement.of_state(shapes, variables_of(trainer.state)))


def _placed(trainer: Constructed, batch: PyTree) -> PyTree:
    """The shapes of a batch, with the places of its parts where there are several devices."""
    placement = trainer._made.placement
    if placement.is_one:
        return batch
    placement.check_batch(batch, trainer.loop.parts)
    return _with_places(batch, placement.of_feed(batch))


def _with_places(shapes: PyTree, places: PyTree) -> PyTree:
    def one(leaf: Any, place: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(one, shapes, places)


def _shapes(tree: PyTree) -> PyTree:
    """The shapes and dtypes that arrays have on the device."""

    def known(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct) or jnp.issubdtype(
            leaf.dtype, jax.dtypes.extended
        ):
            return leaf
        return leaf.update(dtype=jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.eval_shape(lambda tree: tree, jax.tree.map(known, tree))


def _arrays(tree: PyTree) -> Arrays:
    return Arrays(sum(leaf.size for leaf in jax.tree.leaves(tree)), bytes_on_each(tree))


def memory_of(device: Any) -> int | None:
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
