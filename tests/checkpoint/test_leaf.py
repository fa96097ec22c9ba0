import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint._leaf import Leaf, is_array, leaf_of, leaf_text
from boltax.errors import CheckpointError

TEXTS = [
    (np.zeros((3, 4), np.float32), "float32[3, 4]"),
    (jnp.zeros((), jnp.bfloat16), "bfloat16[]"),
    (jax.ShapeDtypeStruct((0, 2), np.int32), "int32[0, 2]"),
    (np.float64(3), "float64[]"),
    (np.bool_(True), "bool[]"),
    (True, "python bool"),
    (7, "python int"),
    (0.5, "python float"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_an_array_has_a_text_that_gives_it_back(value, text):
    assert leaf_text(value, ()) == text
    assert is_array(text)
    leaf = leaf_of(text)
    like = np.zeros(np.shape(value), getattr(value, "dtype", type(value)))
    assert (leaf.raw_shape, leaf.raw_dtype, leaf.nbytes) == (like.shape, like.dtype, like.nbytes)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys_keep_their_generator(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 3)
    for value in (keys, jax.eval_shape(lambda: keys)):
        assert leaf_text(value, ()) == f"key<{impl}>[3]"
    leaf = leaf_of(f"key<{impl}>[3]")
    assert leaf == Leaf((3,), None, key=impl)
    assert leaf.raw_shape == jax.random.key_data(keys).shape
    assert leaf.nbytes == jax.random.key_data(keys).nbytes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "a str at params/w"),
        (np.array([None]), "an array of object at params/w"),
        (2**64, "the number 1.845e"),
        (object(), "a object at params/w"),
    ],
)
def test_what_is_no_array_is_refused_with_its_place(value, message):
    with pytest.raises(CheckpointError, match=message):
        leaf_text(value, ("params", "w"))


@pytest.mark.parametrize(
    "text",
    [
        "float32",
        "float32[",
        "float32[-1]",
        "float32[1.5]",
        "float32[3,4]",
        "object[3]",
        "[3]",
        "",
        "float32[٣]",
        "float32[" + "9" * 40 + "]",
        "float32[" + "1, " * 40 + "1]",
        "python str",
        "key<>[2]",
        "../../x[1]",
        None,
        3,
        {"a": 1},
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(CheckpointError, match=r"Received .* in a checkpoint|in structure\.json"):
        leaf_of(text)


def test_an_unknown_generator_is_named():
    with pytest.raises(CheckpointError, match="generator 'mine', which JAX does not have"):
        _ = leaf_of("key<mine>[2]").raw_shape
