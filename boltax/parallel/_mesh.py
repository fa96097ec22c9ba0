"""The mesh of devices that a `Parallel` asks for."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType

from boltax.errors import ConfigurationError
from boltax.parallel._devices import Device
from boltax.parallel._parallel import Parallel


def mesh_of(parallel: Parallel) -> Any:
    """The devices of a run as a `jax.sharding.Mesh`, in the order that suits their network.

    Its axes are left to the compiler: a user's code says nothing of devices.

    Raises:
        ConfigurationError: when there are too few devices, or they do not fill the mesh.
    """
    devices = _devices(parallel)
    sizes = _sizes(parallel, len(devices))
    number = math.prod(sizes)
    return jax.make_mesh(
        sizes,
        tuple(parallel.mesh),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices[:number],
    )


def _devices(parallel: Parallel) -> list[Device]:
    every, wanted = jax.devices(), parallel.devices
    if wanted is None:
        return list(every)
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if 1 <= wanted <= len(every):
            return list(every[:wanted])
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        listed: list[Any] = list(wanted)
        if listed and all(d in every for d in listed) and len(set(listed)) == len(listed):
            return listed
    raise ConfigurationError(
        f"Received Parallel(devices={wanted!r}); expected None for all of the {len(every)} devices "
        "here, a number of them, or a sequence of different ones. Write devices=jax.devices()."
    )


def _sizes(parallel: Parallel, number: int) -> tuple[int, ...]:
    given = parallel.mesh
    known = math.prod(size for size in given.values() if size != -1)
    is_open = -1 in given.values()
    if known > number or (is_open and number % known):
        shown = " x ".join(f"{name}={size}" for name, size in given.items())
        problem = "is larger than that" if known > number else "does not divide them"
        raise ConfigurationError(
            f"Received Parallel(mesh={dict(given)!r}) on {number} devices; expected a mesh of at "
            f"most as many, all of them used where an axis is -1: {shown} {problem}. Write sizes "
            f"whose product is {number}, or devices={number - number % known or known}."
        )
    return tuple(number // known if size == -1 else size for size in given.values())
