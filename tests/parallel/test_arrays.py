"""Arrays as several processes put them; the same holds of one with two devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from boltax.parallel._arrays import put_by_all, to_host


@pytest.fixture
def shardings():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    return NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


def test_arrays_of_the_host_lie_where_they_are_told(shardings):
    divided, whole = shardings
    tree = {"x": np.arange(4, dtype=np.float32), "n": np.int64(3)}
    put = put_by_all(tree, {"x": divided, "n": whole})
    assert (put["x"].sharding, put["n"].sharding) == (divided, whole)
    assert put["n"].dtype == np.int32  # as JAX has it
    assert to_host(put)["x"].tolist() == [0, 1, 2, 3]


def test_keys_and_arrays_of_a_device_are_moved_bit_for_bit(shardings):
    _, whole = shardings
    key = jax.random.key(3)
    moved = put_by_all({"key": key, "x": jax.numpy.ones(3)}, whole)
    assert moved["key"].sharding == moved["x"].sharding == whole
    assert (jax.random.key_data(moved["key"]) == jax.random.key_data(key)).all()


def test_what_lies_there_is_left_as_it_is(shardings):
    divided, _ = shardings
    array = put_by_all(np.zeros(2, np.float32), divided)
    assert put_by_all(array, divided) is array
