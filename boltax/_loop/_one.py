"""What the moments of a single run work with."""

from dataclasses import dataclass

from boltax._build._hooks import Hooks, Live
from boltax._build._parts import Parts
from boltax._loop._run import Run


@dataclass(frozen=True)
class One:
    """A run of one state, as values.

    Attributes:
        hooks: the methods of its trainer.
        parts: what it is made of.
        live: its state.
        run: its counters, limits and clocks.
    """

    hooks: Hooks
    parts: Parts
    live: Live
    run: Run
