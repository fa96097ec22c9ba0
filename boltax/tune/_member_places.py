"""The places on which a population lies, from what its user says of devices or of a mesh."""

from dataclasses import replace
from typing import Any

from boltax.errors import ConfigurationError
from boltax.parallel._devices import Devices, devices_of
from boltax.parallel._parallel import MEMBERS, Parallel, as_parallel
from boltax.parallel._places import Place, places_of


def member_places(
    parallel: Any, devices: Devices, number: int
) -> tuple[Parallel | None, tuple[Place, ...]]:
    """The places for so many members, and what of a mesh they were made of.

    Raises:
        ConfigurationError: when both are given, for what the devices do not fill, and for more
            places than members.
    """
    wanted = as_parallel(parallel, has_members=True)
    if wanted is None:
        return None, devices_of(devices)
    if devices is not None:
        raise ConfigurationError(
            f"Received devices={devices!r} and parallel={parallel!r}; expected one of them, since "
            "both say where members lie. Write parallel=Parallel(mesh=..., devices=...)."
        )
    places = places_of(wanted)
    if len(places) > number:
        raise ConfigurationError(
            f"Received a mesh with {MEMBERS}={len(places)} for {number} members; expected at least "
            f"as many members, for {len(places) - number} of its places would lie idle. Write "
            f"{MEMBERS}={number} or less, and give the devices that are left to another axis."
        )
    return wanted, places


def at_most(parallel: Parallel | None, number: int) -> Parallel | None:
    """A mesh with no more places than there are members: a study may have few of a kind."""
    if parallel is None or MEMBERS not in parallel.mesh:
        return parallel
    size = min(len(places_of(parallel)), number)
    return replace(parallel, mesh={**parallel.mesh, MEMBERS: size})
