"""Places of members: devices, or parts of a mesh; what lies there stays divided as it was."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from boltax.errors import ConfigurationError
from boltax.parallel import Parallel, _places
from boltax.parallel._coordination import Board
from boltax.parallel._group import Group
from boltax.parallel._placement import ONE_DEVICE
from boltax.parallel._places import (
    first_of,
    keeping,
    num_devices_of,
    on_place,
    placement_at,
    places_of,
    put_whole,
    stacked,
    unstacked,
    with_places,
)
from group_dummies import Store

BOTH = Parallel(mesh={"members": 1, "data": 2}, fsdp="data")


def test_the_members_axis_divides_the_mesh_into_places():
    devices = jax.devices()[:2]
    alone = places_of(Parallel(mesh={"members": 2, "data": 1}, devices=2))
    assert alone == tuple(devices)
    assert [num_devices_of(place) for place in alone] == [1, 1]
    assert placement_at(alone[0]) is ONE_DEVICE
    for parallel in (BOTH, Parallel(mesh={"data": 2}, fsdp="data")):
        (place,) = places_of(parallel)
        assert (first_of(place), num_devices_of(place)) == (devices[0], 2)
        assert dict(place.mesh.shape) == {"data": 2}
        assert place.parallel.fsdp == "data"


def test_arrays_stay_divided_as_they_are():
    (place,), (device, *_) = places_of(BOTH), jax.devices()
    divided = jax.device_put(jnp.arange(4.0), NamedSharding(place.mesh, P("data")))
    tree = {"w": divided, "n": jnp.float32(1)}
    moved = on_place(tree, place)
    assert moved["w"] is divided
    assert moved["n"].sharding.spec == P()
    assert on_place(moved, device)["w"].devices() == {device}
    assert put_whole(jnp.ones(3), place).sharding.is_fully_replicated
    form = with_places({"w": divided}, place, (3,))["w"]
    assert (form.shape, form.sharding.spec) == ((3, 4), P(None, "data"))
    assert with_places(divided, device).sharding.device_set == {device}


def test_results_lie_as_the_arguments_do():
    (place,) = places_of(BOTH)
    divided = jax.device_put(jnp.arange(4.0), NamedSharding(place.mesh, P("data")))
    stack = keeping(lambda *leaves: jnp.stack(leaves), lambda first, *_: stacked(first))
    one = keeping(lambda leaf, index: leaf[index], lambda leaf, _: unstacked(leaf))
    both = stack(divided, divided + 1)
    assert both.sharding.spec == P(None, "data")
    assert one(both, jnp.int32(1)).sharding.spec == P("data")
    assert one(both, jnp.int32(1)).tolist() == [1, 2, 3, 4]
    assert stack(jnp.ones(2)).tolist() == [[1, 1]]


def test_places_of_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(_places, "group", lambda: Group(0, 2, Board(Store())))
    with pytest.raises(ConfigurationError, match="expected one process, whose devices the members"):
        places_of(BOTH)
