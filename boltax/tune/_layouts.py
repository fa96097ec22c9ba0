"""How members lie on the devices, as a value."""

from dataclasses import dataclass

EMPTY = -1
"""In place of a member's number: a row that fills up the last group."""


@dataclass(frozen=True)
class Layout:
    """How members lie on the devices, and what that costs.

    Attributes:
        size: members in a group; 1 for members in turn, each with the trainer's own step.
        devices: how many, or parts of a mesh; groups lie on them one after the other, and again
            from the first.
        lanes: groups that go off side by side, see `Lanes`; more than one on one device only.
        seconds: of a step of a group on each of them and in each lane, as it was measured; 0 when
            it was not.
        compile_seconds: what a program for such a group took to compile; 0 when unknown.
    """

    size: int
    devices: int = 1
    seconds: float = 0.0
    compile_seconds: float = 0.0
    lanes: int = 1

    @property
    def places(self) -> int:
        """Groups that train at the same time."""
        return self.devices * self.lanes
