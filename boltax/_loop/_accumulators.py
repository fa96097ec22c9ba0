"""The metrics of a run that are on the device: since the last record, and of the epoch before it.

There is one accumulator for each state that is trained: one for a single run, one for each group of
members of a population.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from boltax.metrics._accumulate import Metrics, SavedMetrics

Accumulated: TypeAlias = "list[Metrics | SavedMetrics] | None"
"""One for each state; None when there was no step."""


class Due(NamedTuple):
    """Records of one dispatch that are still to be written.

    Attributes:
        steps: their steps.
        examples: examples of this process up to each.
        packed: for each state the metrics, packed on their way to the host: a row for each record,
            or more; of a group of members a row for each member.
    """

    steps: list[int]
    examples: list[int]
    packed: Sequence[Mapping[str, Any]]

    def is_here(self) -> bool:
        """Whether the device has come to the last one."""
        return all(vector.is_ready() for packed in self.packed for vector in packed.values())

    def up_to(self, step: int) -> "Due":
        """The records whose step is no later."""
        number = sum(each <= step for each in self.steps)
        return Due(self.steps[:number], self.examples[:number], self.packed)


@dataclass
class Accumulators:
    """The metrics that are under way.

    Attributes:
        interval: accumulated since the last record.
        epoch: accumulated in the epoch up to the last record.
        due: records of earlier steps that are still to be written, the oldest first.
        told_at: time, step and examples of the last record, for the speed.
        examples: examples of the steps of this process.
    """

    interval: Accumulated = None
    epoch: Accumulated = None
    due: deque[Due] = field(default_factory=deque[Due])
    told_at: tuple[float, int, int] | None = None
    examples: int = 0
