"""Groups of members side by side on the cores of a CPU.

JAX runs what one thread sends off to a CPU one after the other, and what several threads send off
side by side. Steps of one member, or of a few, leave most cores idle most of the time; so the
groups of a population are sent off in as many *lanes* as there are cores, each a thread of its own.
What a group computes does not depend on it.

Nothing is compiled in these threads, for settings of JAX belong to the thread that made them: the
first group goes off from the thread that asks, before the others.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from boltax.parallel._devices import Device
from boltax.parallel._placement import Placement
from boltax.parallel._places import Place


def most_lanes(places: Sequence[Place]) -> int:
    """How many lanes may pay: the cores of a CPU that is one device; elsewhere one."""
    only = places[0]
    if len(places) > 1 or isinstance(only, Placement) or only.platform != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Lanes:
    """The threads; they start when they are first needed."""

    def __init__(self) -> None:
        self._others: list[ThreadPoolExecutor] = []

    def each(self, number: int, send: Callable[[int], None], lanes: int, device: Device) -> None:
        """Sends off the steps of all groups; returns when all are on their way.

        Args:
            number: of groups.
            send: sends off those of one group, by its index.
            lanes: how many at a time; the groups of a lane follow one another.
            device: on which all lie, where there are several lanes.
        """
        lanes = min(lanes, number)
        send(0)
        if lanes < 2:
            for index in range(1, number):
                send(index)
            return

        def follow(first: int) -> None:
            with jax.default_device(device):
                for index in range(first, number, lanes):
                    send(index)

        while len(self._others) < lanes - 1:
            self._others.append(ThreadPoolExecutor(1, "boltax-lane"))
        waiting = [self._others[lane - 1].submit(follow, lane) for lane in range(1, lanes)]
        try:
            follow(lanes)
        finally:
            errors = [other.exception() for other in waiting]
        if (error := next((error for error in errors if error is not None), None)) is not None:
            raise error

    def close(self) -> None:
        """Ends the threads; they start again when they are needed again."""
        while self._others:
            self._others.pop().shutdown()
