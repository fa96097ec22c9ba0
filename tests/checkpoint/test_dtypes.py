import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint._dtypes import dtype_named, is_key, is_storable
from boltax.errors import CheckpointError


@pytest.mark.parametrize(
    "dtype",
    [
        jnp.float32,
        jnp.bfloat16,
        jnp.float16,
        jnp.float8_e4m3fn,
        jnp.float8_e5m2,
        jnp.int4,
        jnp.uint2,
        jnp.int8,
        jnp.uint32,
        jnp.bool_,
        jnp.complex64,
        np.float64,
        np.int64,
    ],
)
def test_a_type_is_found_by_its_name(dtype):
    dtype = np.dtype(dtype)
    assert is_storable(dtype)
    assert dtype_named(dtype.name) == dtype


@pytest.mark.parametrize(
    "name",
    [
        "object",
        "O",
        "str",
        "f4,f4",
        "S100000000",
        "V1000",
        "datetime64[s]",
        "float7",
        "int3",
        "float32 ",
        "__import__",
        "",
        None,
        3,
        ["float32"],
        "fl\u043eat32",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(CheckpointError, match="expected a name such as 'float32'"):
        dtype_named(name)


def test_objects_and_keys_are_not_storable_as_they_are():
    assert not is_storable(np.dtype(object))
    assert not is_storable(np.dtype("datetime64[s]"))
    assert not is_storable(jax.random.key(0).dtype)
    assert is_key(jax.random.key(0).dtype)
    assert not is_key(np.dtype(np.float32))
