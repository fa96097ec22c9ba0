"""What a user may say, and what is refused before there is a model."""

import re

import jax
import pytest

from boltax.errors import ConfigurationError, UnknownNameError
from boltax.parallel import Parallel
from boltax.parallel._mesh import mesh_of
from boltax.parallel._parallel import as_parallel

REFUSED = {
    "no mapping": ({"mesh": "data"}, "expected names of axes with their sizes"),
    "no axis": ({"mesh": {}}, "expected names of axes with their sizes"),
    "a size of 0": ({"mesh": {"data": 0}}, "expected names of axes with their sizes"),
    "two open sizes": ({"mesh": {"data": -1, "model": -1}}, "one of which may be -1"),
    "fsdp unknown": ({"fsdp": "dta"}, "Did you mean 'data'"),
    "fsdp by members": ({"mesh": {"members": 2, "data": 2}, "fsdp": "members"}, "one of: data"),
    "a rule by members": ({"mesh": {"members": 2}, "rules": [("w", ("members",))]}, "'members'"),
    "rule alone": ({"rules": ["kernel"]}, "expected pairs"),
    "no expression": ({"rules": [("(", (None,))]}, "no regular expression"),
    "axes as a text": ({"rules": [("kernel", "data")]}, "one entry for each dimension"),
    "axis unknown": ({"rules": [("kernel", (None, "modl"))]}, "modl"),
    "axis twice": ({"rules": [("kernel", ("data", "data"))]}, "each axis of the mesh once"),
    "logical axis": ({"logical_axes": {"embed": "modl"}}, "modl"),
    "bytes": ({"min_shard_bytes": -1}, "number of bytes from 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    arguments, told = REFUSED[case]
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        Parallel(**arguments)


def test_names_stand_for_the_whole():
    assert as_parallel(None) is None
    assert as_parallel("data") == Parallel(mesh={"data": -1})
    assert as_parallel("fsdp") == Parallel(mesh={"data": -1}, fsdp="data")
    own = Parallel(mesh={"data": 1})
    assert as_parallel(own) is own
    with pytest.raises(UnknownNameError, match="Did you mean 'fsdp'"):
        as_parallel("fdsp")
    with pytest.raises(ConfigurationError, match="Received parallel=2"):
        as_parallel(2)
    with pytest.raises(UnknownNameError, match="min_shard_bytes"):
        Parallel(min_shard_byte=1)


def test_batches_are_divided_by_data_and_fsdp():
    assert Parallel(mesh={"model": 2, "data": 2}).data_axes == ("data",)
    assert Parallel(mesh={"data": 2, "shard": 4}, fsdp="shard").data_axes == ("data", "shard")
    assert Parallel(mesh={"model": 2}).data_axes == ()


def test_a_mesh_takes_the_devices_that_are_left():
    assert dict(mesh_of(Parallel(mesh={"data": -1, "model": 1})).shape) == {"data": 2, "model": 1}
    assert mesh_of(Parallel(devices=1)).size == 1
    last = jax.devices()[1]
    assert mesh_of(Parallel(devices=[last])).devices.tolist() == [last]


def test_a_mesh_that_the_devices_do_not_fill_is_refused():
    with pytest.raises(ConfigurationError, match="data=4 is larger than that"):
        mesh_of(Parallel(mesh={"data": 4}))
    with pytest.raises(ConfigurationError, match="data=-1 x model=3"):
        mesh_of(Parallel(mesh={"data": -1, "model": 3}))
    for devices in (0, 3, [], "cpu", [jax.devices()[0]] * 2):
        with pytest.raises(ConfigurationError, match=r"Received Parallel\(devices="):
            mesh_of(Parallel(devices=devices))


def test_what_is_recorded_is_plain():
    rules = [("kernel$", (None, ("data", "model")))]
    given = Parallel(mesh={"data": 1, "model": 2}, rules=rules, devices=[*jax.devices()])
    assert given.recorded() == {
        "mesh": {"data": 1, "model": 2},
        "fsdp": None,
        "rules": [["kernel$", [None, ("data", "model")]]],
        "logical_axes": None,
        "min_shard_bytes": 2**20,
        "devices": 2,
    }
