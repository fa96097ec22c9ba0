"""Batches are normalised to host arrays, and refused where the step could not use them."""

import dataclasses
from collections import UserDict, namedtuple
from types import MappingProxyType

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import struct
from flax.core import FrozenDict

from boltax.data._batches import BatchCheck, check_leaves, to_host
from boltax.errors import DataError

X, Y = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)


def check(*batches):
    """What the check makes of these batches of one epoch."""
    checked = BatchCheck("train_loader")
    return [checked(batch, 1, number) for number, batch in enumerate(batches, start=1)]


def test_arrays_pass_untouched():
    batch = {"x": X, "y": (Y, None)}
    assert check(batch)[0] is batch


def test_jax_arrays_stay_on_the_device():
    batch = jnp.zeros(3)
    assert check(batch)[0] is batch


def test_numbers_become_arrays_and_pass_where_they_have_a_name():
    assert to_host({"x": 1.5})[0]["x"].shape == ()
    (batch,) = check({"x": X, "t": 0.5})
    assert batch["t"] == 0.5
    with pytest.raises(DataError, match=r"batch\[1\]: float64\[\].*keep constants out"):
        check((X, 0.5))


def test_leaves_may_differ_on_their_first_axis_as_those_of_a_graph_do():
    assert check({"nodes": X, "edges": X[:2]})[0]["edges"].shape == (2, 2)


def test_arrays_of_a_loader_agree_on_their_first_axis():
    with pytest.raises(DataError, match="same number of examples"):
        check_leaves({"x": X, "y": Y[:3]}, "ArrayLoader(arrays)", "arrays")
    with pytest.raises(DataError, match=r"x\[None\]"):
        check_leaves({"x": X, "y": np.zeros(())}, "ArrayLoader(arrays)", "arrays")


def test_foreign_byte_order_becomes_native():
    (batch,) = check(np.arange(3, dtype=">i4"))
    assert batch.dtype.isnative
    assert batch.tolist() == [0, 1, 2]


def test_small_floats_pass():
    check({"a": X.astype(ml_dtypes.bfloat16), "b": X.astype(ml_dtypes.float8_e4m3fn), "c": X > 0})


@struct.dataclass
class FlaxBatch:
    x: np.ndarray
    y: np.ndarray


NamedBatch = namedtuple("NamedBatch", "x y")


@pytest.mark.parametrize("kind", [FlaxBatch, NamedBatch])
def test_registered_classes_stay_what_they_are(kind):
    (batch,) = check(kind(x=X, y=Y))
    assert type(batch) is kind


def test_dataclass_is_registered_as_pytree():
    @dataclasses.dataclass(frozen=True)
    class Plain:
        x: object
        y: object
        kind: str = dataclasses.field(default="a", metadata={"static": True})

    batches = check(Plain(X, Y), Plain(X + 1, Y))
    assert jax.tree.leaves(batches[1])[0] is batches[1].x
    assert jax.tree.map(lambda x: x + 1, batches[0]).kind == "a"


def test_dataclasses_within_each_other_are_opened():
    @dataclasses.dataclass
    class Inner:
        x: object

    @dataclasses.dataclass
    class Outer:
        inner: object
        extra: object

    (batch,) = check(Outer(Inner([X]), UserDict(a=Inner(Y))))
    assert isinstance(batch.extra, dict)
    assert len(jax.tree.leaves(batch)) == 2


def test_torch_tensors_share_their_memory():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, 2, requires_grad=True)
    (batch,) = check((tensor, torch.arange(3)))
    assert np.shares_memory(batch[0], tensor.detach().numpy())
    assert batch[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_torch_dtypes_that_numpy_lacks_are_kept(name):
    torch = pytest.importorskip("torch")
    (batch,) = check(torch.tensor([0.5, 2.0]).to(getattr(torch, name)))
    assert batch.dtype == getattr(ml_dtypes, name)
    assert batch.astype(np.float32).tolist() == [0.5, 2.0]


def test_tf_tensors_become_arrays():
    tf = pytest.importorskip("tensorflow")
    (batch,) = check({"x": tf.ones((3, 2))})
    assert type(batch["x"]) is np.ndarray


class Opaque:
    x = X


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ("cat", r"batch\['z'\]: str; expected a pytree of numeric arrays. Leave text out"),
        (b"cat", r"batch\['z'\]: bytes; .*encode it as integers"),
        (np.array(["a"] * 4), r"<U1\[4\].*Leave text out"),
        (np.array([None] * 4), r"object\[4\].*Pad rows"),
        (np.zeros(4, "datetime64[s]"), r"datetime64\[s\]\[4\].*Convert it"),
        (
            np.zeros(4, np.longdouble),
            r"batch\['z'\]: .*Convert it, e.g. with .astype\(np.float32\)",
        ),
        (np.ma.masked_array([1, 2, 3, 4]), r"batch\['z'\]: int64\[4\].*Put the arrays"),
        (Opaque(), r"batch\['z'\]: Opaque; .*dict, tuple or dataclass, or register its class"),
        ([1, 2, 3, 4], r"batch\['z'\]\[0\]: int64\[\].*write np.asarray\(\[...\]\)"),
    ],
)
def test_unusable_leaf_is_named(leaf, message):
    with pytest.raises(DataError, match=f"Received batch 1 of epoch 1 of train_loader.*{message}"):
        check({"x": X, "z": leaf})


def test_sparse_torch_tensor_is_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(DataError, match=r"batch\[1\]: torch.float32\[3, 3\].*x.to_dense\(\)"):
        check((np.zeros(3), torch.eye(3).to_sparse()))


def test_ragged_tf_tensor_is_named():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(DataError, match=r"batch: .*x.to_tensor\(\)"):
        check(tf.ragged.constant([[1], [2, 3]]))


@pytest.mark.parametrize("batch", [{}, None, ()])
def test_batch_without_arrays_is_refused(batch):
    with pytest.raises(DataError, match="batch: no arrays; expected at least one array"):
        check(batch)


def test_batch_without_examples_is_refused():
    with pytest.raises(DataError, match=r"float32\[0, 2\].*Leave out batches without examples"):
        check({"x": X[:0]})


def test_sizes_may_vary_between_batches():
    assert len(check({"x": X}, {"x": X[:3]}, {"x": np.zeros((4, 9), np.float32)})) == 3


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        ({"x": X, "y": Y, "z": Y}, r"batch\['z'\] changed from nothing .* to 1-d int32"),
        ({"x": X}, r"batch\['y'\] changed from 1-d int32 to nothing \(missing, or None\)"),
        ({"x": X, "y": None}, r"batch\['y'\] changed from 1-d int32 to nothing"),
        (
            {"x": X.astype(np.float64), "y": Y},
            r"batch\['x'\] changed from 2-d float32 to 2-d float64",
        ),
        (
            {"x": X[:, 0], "y": Y},
            r"batch\['x'\] changed from 2-d float32 to 1-d float32",
        ),
        ((X, Y), r"batch\['x'\] changed from 2-d float32 to nothing"),
    ],
)
def test_change_of_structure_names_batch_and_difference(second, difference):
    message = f"Received batch 2 of epoch 1 of train_loader, in which {difference}.*expected every"
    with pytest.raises(DataError, match=message):
        check({"x": X, "y": Y}, second)


def test_change_of_containers_is_named():
    with pytest.raises(DataError, match=r"the containers, .*, changed from .* to "):
        check((X, Y), [X, Y])


def test_change_in_a_later_epoch_is_found():
    checked = BatchCheck("train_loader")
    checked((X, Y), 1, 1)
    with pytest.raises(DataError, match="Received batch 1 of epoch 2 of train_loader"):
        checked((X,), 2, 1)


def test_number_of_examples_is_returned():
    assert check_leaves({"x": X}, "a batch") == 4


@pytest.mark.parametrize("make", [FrozenDict, MappingProxyType, UserDict], ids=lambda m: m.__name__)
def test_mappings_of_other_libraries_pass(make):
    (batch,) = check(make({"x": X, "inner": make({"y": Y})}))
    assert [leaf.shape for leaf in jax.tree.leaves(batch)] == [(4,), (4, 2)]
    assert batch["inner"]["y"] is Y


def test_config_dicts_pass():
    config_dict = pytest.importorskip("ml_collections").ConfigDict
    (batch,) = check(config_dict({"x": X, "inner": {"y": Y}}))
    assert type(batch) is dict
    assert batch["inner"]["y"] is Y


@pytest.mark.parametrize("inner", [False, True])
def test_keys_that_cannot_be_sorted_are_named(inner):
    mixed = {"x": X, 0: Y}
    with pytest.raises(DataError, match=r"keys 'x', 0, of types int, str; .*Use text for all keys"):
        check({"a": [mixed]} if inner else mixed)
