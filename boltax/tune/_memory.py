"""Whether a layout of members fits into the memory of the devices, from shapes alone."""

import math

from boltax._chunks import Chunk, Mode
from boltax._fused import FusedStep
from boltax._preflight import Subject, memory_of
from boltax._state import variables_of
from boltax._trees import tree_bytes
from boltax.tune._run import Layout, PopulationRun


def lack_of_memory(run: PopulationRun, layout: Layout, chunk: Chunk) -> str | None:
    """Why members cannot lie so: what they would need, and what there is; None when they can.

    A device holds the states of its members, their best variables, and once more as much while
    that is saved or moved; the workspace of the single step for each member in a program; and the
    batches that wait.

    Args:
        run: the population, after its single step was compiled.
        layout: how members would lie.
        chunk: one batch.
    """
    needed, memory = _needed(run, layout, chunk), memory_of(run.devices[0])
    if needed is None or memory is None or needed <= memory:
        return None
    return f"they need {_shown(needed)} of memory, and there are {_shown(memory)}"


def _needed(run: PopulationRun, layout: Layout, chunk: Chunk) -> int | None:
    """Bytes on a device; of CPU devices, which share theirs, on all of them."""
    step = run.trainer.steps.train
    if not isinstance(step, FusedStep):
        return None
    temporaries = step.programs[Mode.SINGLE].temporaries
    if temporaries is None:
        return None
    one = Subject(run.trainer, step, run.maker.form(), chunk.form)
    held = tree_bytes(one.state) + tree_bytes(variables_of(one.state))
    rounds = math.ceil(len(run.occupants) / layout.size / layout.devices)
    needed = 2 * rounds * layout.size * held + layout.size * temporaries + one.ahead
    return needed * (layout.devices if run.devices[0].platform == "cpu" else 1)


def _shown(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**28 else f"{number / 2**20:.3g} MiB"
