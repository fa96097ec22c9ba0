"""Which devices are meant, and where arrays lie; the tests run on two CPU devices."""

import jax
import jax.numpy as jnp
import pytest

from boltax.errors import ConfigurationError
from boltax.parallel._devices import default_device, devices_of, on_device


def test_all_some_or_given_ones():
    first, *_, last = local = jax.local_devices()
    assert len(local) >= 2
    assert devices_of(None) == tuple(local)
    assert devices_of(1) == (first,)
    assert devices_of([last, first]) == (last, first)


@pytest.mark.parametrize("wanted", [0, -1, 1000, True, "cpu", [], ["cpu"], 1.0])
def test_what_is_not_there_is_refused(wanted):
    with pytest.raises(ConfigurationError, match=r"Received devices=.*a number of them from 1 to"):
        devices_of(wanted)


def test_a_device_that_is_given_twice_is_refused():
    with pytest.raises(ConfigurationError, match=r"a sequence of different jax\.Device"):
        devices_of([jax.local_devices()[0]] * 2)


def test_the_default_device_is_where_jax_puts_things():
    for device in jax.local_devices():
        with jax.default_device(device):
            assert default_device() == device


def test_a_tree_moves_only_where_it_is_not_yet():
    first, *_, last = jax.local_devices()
    tree = {"w": jax.device_put(jnp.ones(3), first)}
    assert on_device(tree, first) is tree
    moved = on_device(tree, last)
    assert moved["w"].devices() == {last}
    assert moved["w"].tolist() == [1, 1, 1]
    assert on_device({}, first) == {}
