"""What is written, the package safetensors reads, and so does the file beside an export."""

from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from boltax._export._safetensors import write_safetensors
from boltax._export._standalone import read_weights
from boltax.errors import ModelError

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "scalar": np.float32(2.5).reshape(()),
    "empty": np.zeros((0, 3), np.int32),
    "low": np.arange(3).astype(ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
    "device": jnp.arange(5, dtype=jnp.uint8),
}


def test_both_readers_give_back_what_was_written():
    path = Path("w.safetensors")
    write_safetensors(path, ARRAYS, {"format": "boltax"})
    for read in (load_file, read_weights):
        found = read(path)
        assert {*found} == {*ARRAYS}
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_a_type_that_the_format_lacks_is_named():
    with pytest.raises(ModelError, match=r"the array odd, int4\[2\]"):
        write_safetensors(Path("w.safetensors"), {"odd": jnp.ones(2, jnp.int4)})
