"""Numbers on which processes agree while steps are on their way, without waiting for these.

Each process gives its own numbers; a program of the devices takes the largest of each. They are
read a fixed number of dispatches later, when they have long arrived, so that every process acts on
the same numbers at the same dispatch.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, final

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

LAG = 2
"""Dispatches between what is said and when it is acted on."""


@final
class Flags:
    """Small numbers of each process, and the largest of each.

    Args:
        mesh: the devices of all processes.
        number: how many there are.
    """

    def __init__(self, mesh: Any, number: int) -> None:
        self._shape = mesh.size, number
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._largest = jax.jit(lambda flags: flags.max(axis=0), out_shardings=whole)
        self._sent: deque[Any] = deque()

    def tell(self, flags: Sequence[int], *, at_once: bool) -> list[int]:
        """Gives the numbers of this process; all processes call it at the same dispatch.

        Args:
            flags: its numbers, at least 0.
            at_once: wait for what is said now, and for all steps before it.

        Returns:
            The largest of what was said `LAG` calls ago; with `at_once`, since then and now.
        """
        own = np.asarray([flags], np.int32)
        with jax.transfer_guard("allow"):
            every = jax.make_array_from_callback(
                self._shape, self._sharding, lambda part: np.broadcast_to(own, self._shape)[part]
            )
            self._sent.append(self._largest(every))
        found = np.zeros(self._shape[1], np.int32)
        while len(self._sent) > (0 if at_once else LAG):
            found = np.maximum(found, jax.device_get(self._sent.popleft()))
        return found.tolist()

    def forget(self) -> None:
        """Forgets what is on its way, when it was acted on."""
        self._sent.clear()
