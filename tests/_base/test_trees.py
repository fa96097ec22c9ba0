"""Questions about batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._trees import describe, num_examples, tree_bytes
from boltax.errors import DataError


def test_a_batch_is_described_leaf_by_leaf():
    batch = {"x": np.zeros((2, 3), np.float32), "y": [np.zeros(2, np.int32), 5]}
    assert (
        describe(batch) == "batch['x']: float32[2, 3], batch['y'][0]: int32[2], batch['y'][1]: int"
    )
    assert describe(()) == "batch: no arrays"
    assert describe([1] * 15).endswith("(3 more)")


@pytest.mark.parametrize(
    "batch", [(), (np.zeros(3), np.zeros(4)), (np.zeros(3), np.float32(1)), 5.0]
)
def test_leaves_must_agree_on_their_first_axis(batch):
    with pytest.raises(DataError, match="expected arrays that agree on their first axis"):
        num_examples(batch)


def test_sizes_count_every_array():
    assert num_examples({"a": jnp.zeros((5, 2)), "b": jnp.zeros(5)}) == 5
    assert tree_bytes({"a": jnp.zeros((5, 2)), "b": jnp.zeros(5, jnp.int8)}) == 45
