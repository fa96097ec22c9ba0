"""One value answers where everything lies; that of one device leaves everything to JAX."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from boltax._base._chunks import Rows
from boltax.errors import ConfigurationError, DataError
from boltax.parallel import Parallel, _devices
from boltax.parallel._jitted import misplaced
from boltax.parallel._placement import ONE_DEVICE, Placement, placement_of
from boltax.parallel._table import bytes_on_each, described, table

TWO = Placement(Parallel(mesh={"data": 2}, fsdp="data", min_shard_bytes=0))


def specs(tree):
    return [leaf.sharding.spec for leaf in jax.tree.leaves(tree)]


def test_one_device_is_left_to_jax():
    assert placement_of(None) is ONE_DEVICE
    assert (ONE_DEVICE.is_one, ONE_DEVICE.num_devices, ONE_DEVICE.parts) == (True, 1, 1)
    assert ONE_DEVICE.recorded() is None
    assert ONE_DEVICE.number(3) is ONE_DEVICE.number(3)
    assert not ONE_DEVICE.put(np.ones(2)).committed

    def step(state, batch):
        return state, batch

    assert ONE_DEVICE.dividing(step) is step
    assert ONE_DEVICE.forms(jnp.ones(2)) == jax.ShapeDtypeStruct((2,), "float32")


def test_batches_are_divided_by_their_examples():
    batch = {"x": np.ones((4, 3), np.float32), "scale": np.float32(2)}
    assert specs(TWO.put_feed(batch)) == [P(), P(("data",))]
    assert specs(TWO.put_feed(np.ones((3, 4, 2)), is_stacked=True)) == [P(None, ("data",))]
    odd = TWO.put_feed(np.arange(3))
    assert specs(odd) == [P()]
    total = jax.jit(TWO.dividing(lambda state, batch: state + batch.sum()))
    assert int(total(TWO.number(1), odd)) == 1 + 0 + 1 + 2
    rows = Rows(np.ones((4, 3)), np.arange(4), np.int32(0), 2)
    assert specs(TWO.put_feed(rows)) == [P()] * 3


def test_a_mesh_without_a_data_axis_has_whole_batches():
    model = Placement(Parallel(mesh={"model": 2}))
    assert (model.parts, specs(model.put_feed(np.ones((4, 2))))) == (1, [P()])
    model.check_batch({"nodes": np.ones(3), "edges": np.ones(5)})


def test_batches_that_do_not_divide_are_refused_with_sizes_that_do():
    TWO.check_batch(np.ones((4, 1)))
    with pytest.raises(ConfigurationError, match=re.escape("Write batch_size=6 or 8.")):
        TWO.check_batch(np.ones((7, 1)))
    with pytest.raises(ConfigurationError, match=re.escape("times 3 microbatches; expected a num")):
        TWO.check_batch(np.ones((8, 1)), microbatches=3)
    with pytest.raises(DataError, match="agree on their first axis"):
        TWO.check_batch({"nodes": np.ones(3), "edges": np.ones(5)})


def test_variables_settle_where_they_belong():
    variables = {"params": {"kernel": np.ones((3, 4), np.float32), "odd": np.ones(3, np.float32)}}
    settled = TWO.settled(variables, {})
    assert specs(settled) == [P(None, "data"), P()]
    shapes = TWO.settled(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, variables)), {})
    assert specs(shapes) == specs(settled)
    assert [leaf.spec for leaf in jax.tree.leaves(TWO.held(settled))] == specs(settled)
    assert TWO.held(np.ones(2)) == TWO.whole
    state = {"mu": {"kernel": jnp.ones((3, 4))}, "count": jnp.ones(())}
    found = TWO.of_state(state, settled)
    assert found["mu"]["kernel"].spec == P(None, "data")
    assert found["count"].spec == P()


def test_a_compiled_function_gives_what_it_was_told():
    def shardings(x):
        return (TWO.held(x),), TWO.of_feed(x)

    double = TWO.jit(lambda x: 2 * x, shardings)
    whole, divided = double(TWO.put(np.ones(4))), double(TWO.put_feed(np.ones(4)))
    assert whole.tolist() == [2] * 4
    assert specs((whole, divided)) == [P(("data",))] * 2
    assert specs(TWO.jit_whole(lambda x: x + 1)(divided)) == [P()]
    text = double.lower(TWO.forms(divided)).as_text()
    assert "sharding" in text


def test_an_array_that_lies_elsewhere_is_named():
    divided, whole = TWO.put_feed(np.ones(4)), TWO.put(np.ones(4))
    compiled = TWO.jit(lambda x: x["a"], lambda x: ((TWO.held(x),), TWO.whole)).lower(
        {"a": divided}
    )
    expected = compiled.compile().input_shardings[0]
    assert misplaced(({"a": divided},), expected) is None
    assert misplaced(({"a": np.ones(4)},), expected) is None
    path, place, wanted = misplaced(({"a": whole},), expected)
    assert (path, place.is_fully_replicated, wanted.is_fully_replicated) == (
        "[0]['a']",
        True,
        False,
    )


def test_the_table_says_how_arrays_lie():
    variables = {"params": {"kernel": np.ones((3, 4), np.float32), "scale": np.ones(3, np.float32)}}
    settled = TWO.settled(variables, {})
    assert bytes_on_each(settled) == 4 * (3 * 2 + 3)
    lines = table(settled, TWO).splitlines()
    assert lines[0] == "On 2 devices (cpu), data=2; batches in 2 parts."
    assert [line.split() for line in lines[3:]] == [
        ["params/kernel", "3,", "4", "-,", "data", "24"],
        ["params/scale", "3", "nothing", "12"],
        ["all", "of", "60", "bytes", "36"],
    ]
    assert "... 1 smaller arrays" in table(settled, TWO, most=1)
    assert table(variables, ONE_DEVICE) == ""
    assert described(Placement(Parallel(mesh={"model": 1}))).endswith("model=1; batches whole.")


def test_what_is_recorded_names_the_sizes_of_the_mesh():
    recorded = TWO.recorded()
    assert recorded is not None
    assert (recorded["mesh"], recorded["processes"]) == ({"data": 2}, 1)


def test_accelerators_that_lie_idle_are_told_of(monkeypatch):
    assert _devices.idle_devices() == ""  # those of a CPU share its cores
    chips = [SimpleNamespace(platform="gpu", device_kind="H200")] * 3
    monkeypatch.setattr(jax, "local_devices", lambda: chips)
    assert _devices.idle_devices() == (
        'Trains on one device (H200); 2 others lie idle. Write parallel="data" to use all of them.'
    )
    assert _devices.idle_devices(used=3) == ""
