"""The loop by hand of `side_hand`, with memory kept from step to step as boltax has it kept.

That is what the compiled steps of a large model can reach without a trainer around them.
"""

from pathlib import Path

from boltax._process._allocator import LARGE, Outcome, keep_memory
from suite import side_hand
from suite.rounds import NotOfferedError, Rounds
from suite.tasks import Task


def donated(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """The reference, after the C library was told what boltax tells it."""
    if task.kind == "mlp":
        raise NotOfferedError("small values, which nothing is done for")
    outcome = keep_memory(lambda: LARGE)
    if outcome is not Outcome.KEPT:
        raise NotOfferedError(outcome.value)
    side_hand.donated(task, rounds, data, folder)
