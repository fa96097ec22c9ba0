"""Variables as nested dicts that stay the same from step to step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.errors import ModelError
from boltax.models._collections import put, settled, strong, take


def test_strong_arrays_have_a_definite_dtype() -> None:
    tree = strong({"number": 0.5, "count": 3, "array": np.ones(2, np.float32)})
    assert {leaf.weak_type for leaf in jax.tree.leaves(tree)} == {False}
    assert tree["count"].dtype == jnp.int32


def test_strong_leaves_keys_and_shapes_alone() -> None:
    key, shape = jax.random.key(0), jax.ShapeDtypeStruct((2,), jnp.float32)
    result = strong({"key": key, "shape": shape})
    assert result["key"].dtype == key.dtype
    assert result["shape"] is shape


def test_settled_takes_new_values() -> None:
    after = settled("stats", {"mean": jnp.zeros(2)}, {"mean": jnp.ones(2)}, "Model")
    np.testing.assert_array_equal(after["mean"], [1, 1])


@pytest.mark.parametrize(
    "after",
    [{"mean": jnp.zeros(3)}, {"mean": jnp.zeros(2, jnp.int32)}, {"mean": jnp.zeros(2), "x": 1}, {}],
    ids=["shape", "dtype", "more", "fewer"],
)
def test_settled_refuses_another_structure(after: dict) -> None:
    with pytest.raises(
        ModelError, match=r"(?s)'stats' of Model after.*stats\['mean'\]: float32\[2\]"
    ):
        settled("stats", {"mean": jnp.zeros(2)}, after, "Model")


def test_what_is_put_is_taken() -> None:
    tree: dict = {}
    put(tree, ("a", "b"), 1)
    put(tree, ("a", "c"), 2)
    assert tree == {"a": {"b": 1, "c": 2}}
    assert take(tree, ("a", "c"), "Model") == 2


@pytest.mark.parametrize("path, known", [(("a", "x"), "a has only: b"), (("z",), "the top level")])
def test_a_path_that_leads_nowhere_names_what_there_is(path: tuple, known: str) -> None:
    with pytest.raises(ModelError, match=rf"for Model without {'/'.join(path)}; .*{known}"):
        take({"a": {"b": 1}}, path, "Model")
