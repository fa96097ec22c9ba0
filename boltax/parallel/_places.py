"""Where the members of a population lie: places, each a device of its own or a part of a mesh.

``Parallel(mesh={"members": 4, "data": 2})`` on eight devices gives four places of two devices. What
lies on one of them lies as a single run on a mesh ``{"data": 2}`` would, so the step of a member
there is the very step of that run.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from boltax._base._types import PyTree
from boltax.errors import ConfigurationError
from boltax.parallel._devices import Device, on_device
from boltax.parallel._group import group
from boltax.parallel._jitted import Jitted
from boltax.parallel._mesh import mesh_of
from boltax.parallel._parallel import MEMBERS, Parallel
from boltax.parallel._placement import ONE_DEVICE, Placement

Place: TypeAlias = "Device | Placement"
"""A device, or the placement on a part of a mesh."""


def places_of(parallel: Parallel) -> tuple[Place, ...]:
    """The places along the members axis of a mesh; the whole mesh is one where it has no such axis.

    Raises:
        ConfigurationError: for a mesh that the devices do not fill, and in a job of several
            processes.
    """
    if not (processes := group()).is_alone:
        raise ConfigurationError(
            f"Received parallel={parallel!r} for a population in a job of {processes.count} "
            "processes; expected one process, whose devices the members are spread over. Start one "
            "process with all devices of a machine, or a worker of a study in each."
        )
    mesh = mesh_of(parallel)
    names = list(mesh.axis_names)
    first = names.index(MEMBERS) if MEMBERS in names else None
    devices = mesh.devices[np.newaxis] if first is None else np.moveaxis(mesh.devices, first, 0)
    parts: list[list[Device]] = devices.reshape(len(devices), -1).tolist()
    if len(parts[0]) == 1:
        return tuple(part[0] for part in parts)
    rest = {name: int(size) for name, size in mesh.shape.items() if name != MEMBERS}
    return tuple(Placement(replace(parallel, mesh=rest, devices=tuple(part))) for part in parts)


def placement_at(place: Place) -> Placement:
    """The placement of what is compiled for a place."""
    return place if isinstance(place, Placement) else ONE_DEVICE


def first_of(place: Place) -> Device:
    """A device of a place, for what is the same of all."""
    return place.device if isinstance(place, Placement) else place


def num_devices_of(place: Place) -> int:
    """The devices that share a place."""
    return placement_at(place).num_devices


def on_place(tree: PyTree, place: Place) -> PyTree:
    """A tree on a place, its arrays divided as they are; one that is there stays what it is."""
    if not isinstance(place, Placement):
        return on_device(tree, place)
    return jax.tree.map(lambda leaf: _moved(leaf, place), tree)


def put_whole(tree: PyTree, place: Place) -> PyTree:
    """A tree on a place, each of whose devices has the whole."""
    return place.put(tree) if isinstance(place, Placement) else on_device(tree, place)


def with_places(forms: PyTree, place: Place, axes: tuple[int, ...] = ()) -> PyTree:
    """Forms that say that they lie on a place, divided as they are; perhaps with further axes.

    Args:
        forms: shapes, with their shardings where they are divided.
        place: where.
        axes: sizes of axes in front of the others.
    """

    def one(leaf: Any) -> Any:
        if isinstance(place, Placement):
            spec = (*(None,) * len(axes), *_spec(leaf))
            where: Any = NamedSharding(place.mesh, PartitionSpec(*spec))
        else:
            where = SingleDeviceSharding(place)
        return jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype, sharding=where)

    return jax.tree.map(one, forms)


def keeping(
    function: Callable[..., PyTree],
    results: Callable[..., PyTree],
    donate: tuple[int, ...] = (),
) -> Callable[..., PyTree]:
    """Compiles a function whose results on a mesh are divided as its arguments are.

    Args:
        function: a pure function of trees.
        results: from the shardings of its arguments to those of its results.
        donate: the arguments whose memory is taken.
    """

    def shardings(*args: PyTree) -> tuple[Any, Any]:
        mesh = _mesh(args)
        whole = NamedSharding(mesh, PartitionSpec())
        held = jax.tree.map(lambda leaf: leaf.sharding if _is_spread(leaf) else whole, args)
        return held, results(*held)

    alone, spread = jax.jit(function, donate_argnums=donate), Jitted(function, shardings, donate)
    return lambda *args: (alone if _mesh(args) is None else spread)(*args)


def stacked(shardings: PyTree) -> PyTree:
    """The shardings of trees with a further first axis, which is not divided."""
    return jax.tree.map(lambda s: NamedSharding(s.mesh, PartitionSpec(None, *s.spec)), shardings)


def unstacked(shardings: PyTree) -> PyTree:
    """The shardings of trees without their first axis."""
    return jax.tree.map(lambda s: NamedSharding(s.mesh, PartitionSpec(*s.spec[1:])), shardings)


def _moved(leaf: Any, place: Placement) -> Any:
    wanted = NamedSharding(place.mesh, PartitionSpec(*_spec(leaf)))
    is_there = isinstance(leaf, jax.Array) and leaf.sharding == wanted
    return leaf if is_there else jax.device_put(leaf, wanted)


def _spec(leaf: Any) -> tuple[Any, ...]:
    sharding = getattr(leaf, "sharding", None)
    return tuple(sharding.spec) if isinstance(sharding, NamedSharding) else ()


def _is_spread(leaf: Any) -> bool:
    return isinstance(getattr(leaf, "sharding", None), NamedSharding)


def _mesh(args: PyTree) -> Any:
    found = (leaf.sharding.mesh for leaf in jax.tree.leaves(args) if _is_spread(leaf))
    return next(found, None)
