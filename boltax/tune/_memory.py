"""Whether a layout of members fits into the memory of the devices, from shapes alone."""

import math

from boltax._base._chunks import Chunk, Mode
from boltax._inspect._preflight import Subject
from boltax._step._fused import FusedStep
from boltax._step._state import variables_of
from boltax.errors import ConfigurationError
from boltax.parallel._places import first_of, num_devices_of
from boltax.parallel._table import bytes_on_each
from boltax.tune._layouts import Layout
from boltax.tune._members import Members


def lack_of_memory(members: Members, layout: Layout, chunk: Chunk) -> str | None:
    """Why members cannot lie so: what they would need, and what there is; None when they can.

    A device holds the states of its members, their best variables, and once more as much while
    that is saved or moved; the workspace of a group in each lane, or that of the single step for
    each of its members; and the batches that wait.

    Args:
        members: the population, after its single step was compiled, or that of the group.
        layout: how members would lie.
        chunk: one batch.
    """
    needed = _needed(members, layout, chunk)
    if needed is None or members.memory is None or needed <= members.memory:
        return None
    return f"they need {_shown(needed)} of memory, and there are {_shown(members.memory)}"


def check_wanted(members: Members, layout: Layout, chunk: Chunk) -> None:
    """Refuses groups that do not fit, of a size that the user gives, before their first step.

    Members in turn are never refused: nothing takes less.

    Args:
        members: the population, after the step of the groups was compiled.
        layout: how members lie.
        chunk: one batch.

    Raises:
        ConfigurationError: with what they need, and what there is.
    """
    if members.is_checked:
        return
    lack = lack_of_memory(members, layout, chunk) if layout.size > 1 else None
    if lack is not None:
        raise ConfigurationError(
            f"Received members_per_step={members.wanted}, and {len(members.occupants)} members "
            f"that do not fit in groups of {layout.size}: {lack}; expected groups that fit. Write "
            "a smaller number, or leave members_per_step out: then only what fits is tried."
        )
    members.is_checked = True


def _needed(members: Members, layout: Layout, chunk: Chunk) -> int | None:
    """Bytes on a device; of CPU devices, which share theirs, on all of them."""
    step, workspace = members.parts.steps.train, _workspace(members, layout.size)
    if workspace is None or not isinstance(step, FusedStep):
        return None
    one = Subject(members.hooks, step, members.maker.form(), chunk.form)
    held = bytes_on_each(one.state) + bytes_on_each(variables_of(one.state))
    rounds = math.ceil(len(members.occupants) / layout.size / layout.devices)
    needed = 2 * rounds * layout.size * held + layout.lanes * workspace + one.ahead
    place = members.places[0]
    is_shared = first_of(place).platform == "cpu"
    return needed * (layout.devices * num_devices_of(place) if is_shared else 1)


def _workspace(members: Members, size: int) -> int | None:
    """Bytes of workspace of a group's step, from its program or else from the single step's."""
    for steps, times in (
        (members.make_steps(size, members.places[0]), 1),
        (members.parts.steps, size),
    ):
        step = steps.train
        known = step.programs[Mode.SINGLE].temporaries if isinstance(step, FusedStep) else None
        if known is not None:
            return times * known
    return None


def _shown(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**28 else f"{number / 2**20:.3g} MiB"
