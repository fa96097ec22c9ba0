"""Whether a layout of members fits into the memory of the devices, from shapes alone."""

import math

from boltax._base._chunks import Chunk, Mode
from boltax._base._trees import tree_bytes
from boltax._inspect._preflight import Subject
from boltax._step._fused import FusedStep
from boltax._step._state import variables_of
from boltax.errors import ConfigurationError
from boltax.tune._run import Layout, PopulationRun


def lack_of_memory(run: PopulationRun, layout: Layout, chunk: Chunk) -> str | None:
    """Why members cannot lie so: what they would need, and what there is; None when they can.

    A device holds the states of its members, their best variables, and once more as much while
    that is saved or moved; the workspace of a group in each lane, or that of the single step for
    each of its members; and the batches that wait.

    Args:
        run: the population, after its single step was compiled, or that of the group.
        layout: how members would lie.
        chunk: one batch.
    """
    needed = _needed(run, layout, chunk)
    if needed is None or run.memory is None or needed <= run.memory:
        return None
    return f"they need {_shown(needed)} of memory, and there are {_shown(run.memory)}"


def check_wanted(run: PopulationRun, layout: Layout, chunk: Chunk) -> None:
    """Refuses groups that do not fit, of a size that the user gives, before their first step.

    Members in turn are never refused: nothing takes less.

    Args:
        run: the population, after the step of the groups was compiled.
        layout: how members lie.
        chunk: one batch.

    Raises:
        ConfigurationError: with what they need, and what there is.
    """
    if run.is_checked:
        return
    lack = lack_of_memory(run, layout, chunk) if layout.size > 1 else None
    if lack is not None:
        raise ConfigurationError(
            f"Received members_per_step={run.wanted}, and {len(run.occupants)} members that do not "
            f"fit in groups of {layout.size}: {lack}; expected groups that fit. Write a smaller "
            "number, or leave members_per_step out: then only what fits is tried."
        )
    run.is_checked = True


def _needed(run: PopulationRun, layout: Layout, chunk: Chunk) -> int | None:
    """Bytes on a device; of CPU devices, which share theirs, on all of them."""
    step, workspace = run.trainer._made.steps.train, _workspace(run, layout.size)
    if workspace is None or not isinstance(step, FusedStep):
        return None
    one = Subject(run.trainer, step, run.maker.form(), chunk.form)
    held = tree_bytes(one.state) + tree_bytes(variables_of(one.state))
    rounds = math.ceil(len(run.occupants) / layout.size / layout.devices)
    needed = 2 * rounds * layout.size * held + layout.lanes * workspace + one.ahead
    return needed * (layout.devices if run.devices[0].platform == "cpu" else 1)


def _workspace(run: PopulationRun, size: int) -> int | None:
    """Bytes of workspace of a group's step, from its program or else from the single step's."""
    for steps, times in (
        (run.make_steps(size, run.devices[0]), 1),
        (run.trainer._made.steps, size),
    ):
        step = steps.train
        known = step.programs[Mode.SINGLE].temporaries if isinstance(step, FusedStep) else None
        if known is not None:
            return times * known
    return None


def _shown(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**28 else f"{number / 2**20:.3g} MiB"
