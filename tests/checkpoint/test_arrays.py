import json
import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from boltax.checkpoint._arrays import read_arrays, read_structure, write_arrays
from boltax.errors import CheckpointError


class Pair(NamedTuple):
    a: object
    b: object


def everything():
    """Every kind of array, and every kind of part that orbax cannot store."""
    floats = np.array([0.0, -0.0, np.inf, np.nan, 1e-45, 3.4e38], np.float32)
    return {
        "params": {"Dense_0": {"kernel": jnp.asarray(floats), "bias": jnp.zeros((3,))}},
        "dtypes": {
            "bf16": jnp.asarray(floats, jnp.bfloat16),
            "f8": jnp.ones((2, 2), jnp.float8_e4m3fn),
            "int4": jnp.array([1, -8], jnp.int4),
            "u8": np.arange(5, dtype=np.uint8),
            "bool": jnp.array([True, False]),
            "complex": jnp.array([1 + 2j], jnp.complex64),
            "zero_axes": jnp.array(7, jnp.int32),
            "scalar": np.float32(0.1),
            "big_endian": np.arange(3, dtype=">i4"),
            "strided": np.arange(12, dtype=np.int32).reshape(3, 4)[::2, ::-1],
        },
        "empty": {"none": None, "dict": {}, "list": [], "size": jnp.zeros((0, 3), jnp.bfloat16)},
        "keys": {"one": jax.random.key(1), "more": jax.random.split(jax.random.key(2), 3)},
        "rbg": jax.random.key(3, impl="rbg"),
        "old_key": jax.random.key_data(jax.random.key(4)),
        "nested": [{"a": (jnp.ones(2), [jnp.zeros(1)])}],
        "python": {"int": -3, "float": 0.1, "bool": True},
        "names": {
            "a.b": jnp.ones(1),
            "a": {"b": jnp.zeros(1)},
            "x/y": jnp.ones(2),
            "": jnp.ones(3),
        },
        "__tuple__": {"..": jnp.ones(1), "../../up": jnp.zeros(2), "ä 你": jnp.ones(3)},
    }


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(leaf)), bits(jax.random.key_data(leaf))
    array = np.asarray(leaf)
    return (
        str(array.dtype.newbyteorder("=")),
        array.shape,
        array.astype(array.dtype.newbyteorder("=")).tobytes(),
    )


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.map(bits, one) == jax.tree.map(bits, other)


def test_everything_comes_back_bitwise_without_a_template(tmp_path):
    write_arrays(tmp_path, "arrays", everything())
    assert_equal(read_arrays(tmp_path, "arrays"), everything())


def test_everything_comes_back_bitwise_with_a_template(tmp_path):
    write_arrays(tmp_path, "arrays", everything())
    assert_equal(read_arrays(tmp_path, "arrays", everything()), everything())


def test_arrays_are_jax_arrays_on_the_default_device(tmp_path):
    write_arrays(tmp_path, "arrays", {"w": np.ones(3, np.float32), "k": jax.random.key(0)})
    with jax.default_device(jax.devices()[1]):
        loaded = read_arrays(tmp_path, "arrays")
    assert {leaf.sharding for leaf in loaded.values()} == {SingleDeviceSharding(jax.devices()[1])}


def test_types_that_jax_does_not_have_stay_in_numpy(tmp_path):
    tree = {"i": np.array([2**40]), "f": np.array([0.1]), "e": np.zeros((0,), np.int64)}
    write_arrays(tmp_path, "arrays", tree)
    for template in (None, tree):
        loaded = read_arrays(tmp_path, "arrays", template)
        assert {type(leaf) for leaf in loaded.values()} == {np.ndarray}
        assert_equal(loaded, tree)


def test_an_optimizer_state_keeps_its_classes_with_a_template(tmp_path):
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    state = optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params)
    write_arrays(tmp_path, "arrays", {"opt": state, "pair": Pair(jnp.ones(1), None)})
    template = {"opt": jax.eval_shape(lambda: state), "pair": Pair(jnp.zeros(1), None)}
    loaded = read_arrays(tmp_path, "arrays", template)
    assert_equal(loaded, {"opt": state, "pair": Pair(jnp.ones(1), None)})
    with pytest.raises(CheckpointError, match=r"with a \w+ at .*restore\(template=\.\.\.\)"):
        read_arrays(tmp_path, "arrays")


@pytest.mark.parametrize("name", ["params", "dtypes", "empty", "keys", "nested", "python", "rbg"])
def test_an_open_part_matches_anything_and_stays_on_the_host(tmp_path, name):
    write_arrays(tmp_path, "arrays", everything())
    loaded = read_arrays(tmp_path, "arrays", everything() | {name: ...})
    assert_equal(loaded, everything())
    arrays = (leaf for leaf in jax.tree.leaves(loaded[name]) if isinstance(leaf, jax.Array))
    assert all(jnp.issubdtype(array.dtype, jax.dtypes.prng_key) for array in arrays)
    assert_equal(read_arrays(tmp_path, "arrays", ...), everything())


def test_classes_in_an_open_part_become_dicts(tmp_path):
    write_arrays(tmp_path, "arrays", {"pair": Pair(jnp.ones(1), (None,)), "w": jnp.ones(2)})
    loaded = read_arrays(tmp_path, "arrays", {"pair": ..., "w": jnp.zeros(2)})
    assert_equal(loaded["pair"], {"a": np.ones(1, np.float32), "b": (None,)})


def test_an_open_part_has_to_be_there(tmp_path):
    write_arrays(tmp_path, "arrays", {"w": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=r"missing +more +- +anything"):
        read_arrays(tmp_path, "arrays", {"w": ..., "more": ...})


def test_a_tree_without_any_array_is_stored(tmp_path):
    tree = {"params": {}, "none": None, "size": jnp.zeros((2, 0))}
    write_arrays(tmp_path, "arrays", tree)
    assert_equal(read_arrays(tmp_path, "arrays"), tree)
    assert not (tmp_path / "arrays").exists()


def test_shardings_come_from_the_template(tmp_path):
    mesh = jax.make_mesh((2,), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    values = np.arange(8, dtype=np.float32)
    tree = {"w": jax.device_put(values, split), "b": jax.device_put(values, everywhere)}
    write_arrays(tmp_path, "arrays", tree)

    again = read_arrays(tmp_path, "arrays", tree)
    assert (again["w"].sharding, again["b"].sharding) == (split, everywhere)
    other = {"w": jax.ShapeDtypeStruct((8,), np.float32, sharding=everywhere), "b": values}
    moved = read_arrays(tmp_path, "arrays", other)
    assert moved["w"].sharding == everywhere
    for loaded in (again, moved, read_arrays(tmp_path, "arrays")):
        assert_equal(jax.device_get(loaded), {"w": values, "b": values})


@pytest.mark.slow
def test_arrays_of_two_devices_load_where_there_is_one(tmp_path, monkeypatch):
    split = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
    weights = jax.device_put(np.arange(8, dtype=np.float32), split)
    write_arrays(tmp_path, "arrays", {"w": weights, "key": jax.random.key(3)})
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    code = (
        "import jax; from pathlib import Path\n"
        "from boltax.checkpoint._arrays import read_arrays\n"
        f"tree = read_arrays(Path({str(tmp_path)!r}), 'arrays')\n"
        "print(jax.device_count(), float(tree['w'].sum()), tree['w'].sharding.device_set)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["1", "28.0"]
    assert done.stderr == ""


def test_a_template_that_differs_is_refused_with_a_table(tmp_path):
    write_arrays(tmp_path, "arrays", {"params": {"w": jnp.ones((3, 4)), "old": jnp.ones(2)}})
    template = {"params": {"w": jnp.ones((3, 5)), "new": jnp.ones(1, jnp.bfloat16)}}
    with pytest.raises(CheckpointError, match="does not fit the model") as caught:
        read_arrays(tmp_path, "arrays", template)
    rows = [line.split() for line in str(caught.value).splitlines()]
    assert ["shape", "params/w", "float32[3,", "4]", "float32[3,", "5]"] in rows
    assert ["missing", "params/new", "-", "bfloat16[1]"] in rows
    assert ["unexpected", "params/old", "float32[2]", "-"] in rows


def test_another_dtype_is_never_cast(tmp_path):
    write_arrays(tmp_path, "arrays", {"w": jnp.ones(300)})
    with pytest.raises(CheckpointError, match=r"dtype +w +float32.* bfloat16"):
        read_arrays(tmp_path, "arrays", {"w": jnp.ones(300, jnp.bfloat16)})
    (tmp_path / "structure.json").write_text('{"w": "bfloat16[300]"}')
    for template in (None, {"w": jnp.ones(300, jnp.bfloat16)}):
        with pytest.raises(CheckpointError, match=r"w is float32\[300\] among the arrays"):
            read_arrays(tmp_path, "arrays", template)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({"w": "float32[301]"}, r"float32\[300\] among the arrays"),
        ({"w": "float32[300]", "more": "float32[1]"}, "KeyError: 'more'"),
        ({}, "declares no arrays"),
        ([], "declares no arrays"),
        ({"v": "float32[300]"}, "KeyError: 'v'"),
        ({"w": "float32[1000000000000]"}, "declares 4,000,000,000,000 bytes, and its files have"),
        ({"w": "float32[300]", "x": ["float32[99999, 99999]"]}, "declares 39,999"),
        ({"w": {"in": "float32[300]"}}, "cannot be read"),
        ({"w": "key<mine>[300]"}, "generator 'mine'"),
        ({"..": {"..": "float32[3]"}}, "KeyError"),
        ({"w": "text"}, "Received 'text' in structure.json"),
        ([["float32[300]"]], "cannot be read"),
    ],
)
def test_a_structure_that_is_not_that_of_the_arrays_is_refused(tmp_path, structure, message):
    write_arrays(tmp_path, "arrays", {"w": jnp.ones(300)})
    (tmp_path / "structure.json").write_text(json.dumps(structure))
    with pytest.raises(CheckpointError, match=message):
        read_arrays(tmp_path, "arrays")


def test_a_deep_structure_is_refused(tmp_path):
    (tmp_path / "structure.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(CheckpointError, match="nested more than 100 levels"):
        read_structure(tmp_path)


@pytest.mark.parametrize("damage", ["delete", "empty", "half"])
def test_a_damaged_file_is_an_error_or_changes_nothing(tmp_path, damage):
    values = np.arange(2000, dtype=np.float32)
    write_arrays(tmp_path, "arrays", {"w": values})
    found = 0
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        try:
            assert_equal(read_arrays(tmp_path, "arrays"), {"w": jnp.asarray(values)})
        except CheckpointError:
            found += 1
        path.write_bytes(content)
    assert found >= 4
    assert_equal(read_arrays(tmp_path, "arrays"), {"w": jnp.asarray(values)})


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_arrays(tmp_path, "arrays")
    (tmp_path / "structure.json").write_text('{"w": "float32[3]"}')
    with pytest.raises(CheckpointError, match="does not exist"):
        read_arrays(tmp_path, "arrays")


def test_what_cannot_be_stored_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="a str at params/name"):
        write_arrays(tmp_path, "arrays", {"params": {"name": "text"}})
    assert not list(tmp_path.iterdir())


def test_nothing_warns_when_values_are_not_numbers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_arrays(tmp_path, "arrays", {"w": jnp.full((3,), jnp.nan)})
        assert bool(jnp.isnan(read_arrays(tmp_path, "arrays")["w"]).all())


def test_an_array_that_was_donated_is_named(tmp_path):
    weights = jnp.ones(3)
    weights.delete()
    with pytest.raises(CheckpointError, match="memory was given to a later step at params/w"):
        write_arrays(tmp_path, "arrays", {"params": {"w": weights}})
