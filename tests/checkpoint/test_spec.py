import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import checkpoint_project as project
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._spec import batch_spec, zeros_from_spec
from boltax.errors import CheckpointError

LOOKUP = Lookup(project.Trainer)


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    project.CALLS.clear()


IMAGES = np.ones((8, 28, 28, 1), np.float32)
LABELS = np.ones(8, np.int32)

BATCHES = [
    IMAGES,
    (IMAGES, LABELS),
    [IMAGES],
    {"image": IMAGES, "label": LABELS, "nested": {"list": [LABELS, None], "array": LABELS}},
    project.Pair(IMAGES, LABELS),
    project.Example(tokens=LABELS, name="german"),
    {"text": "a", "flag": True, "n": 3, "x": 0.5, "none": None},
    (jnp.ones((2, 3), jnp.bfloat16), np.float64(3), jax.ShapeDtypeStruct((4,), jnp.uint8)),
    (),
    {},
]


def zeros_like(leaf):
    return np.zeros(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_comes_back_as_zeros(batch):
    spec = json.loads(json.dumps(batch_spec(batch, LOOKUP), allow_nan=False))
    zeros = zeros_from_spec(spec, LOOKUP)
    expected = jax.tree.map(zeros_like, batch)
    assert jax.tree.structure(zeros) == jax.tree.structure(expected)
    for zero, leaf in zip(jax.tree.leaves(zeros), jax.tree.leaves(expected), strict=True):
        assert type(zero) is type(leaf)
        assert np.array_equal(zero, leaf)
        assert getattr(zero, "dtype", None) == getattr(leaf, "dtype", None)


def test_no_values_are_stored():
    assert "7" not in json.dumps(batch_spec(np.full(3, 7.0, np.float32), LOOKUP))


def test_torch_tensors_become_numpy_arrays():
    torch = pytest.importorskip("torch")
    zeros = zeros_from_spec(batch_spec([torch.ones(2, 3)], LOOKUP), LOOKUP)
    assert (zeros[0].shape, zeros[0].dtype) == ((2, 3), np.float32)


Local = collections.namedtuple("Local", "a")


@pytest.mark.parametrize(
    "part",
    [
        Local(LABELS),
        object(),
        np.array([None]),
        np.array(["text"]),
        jax.random.key(0),
        {3: LABELS},
        float("nan"),
        2**70,
    ],
)
def test_what_cannot_be_stored_asks_for_an_example_when_loading(part):
    spec = json.loads(json.dumps(batch_spec((LABELS, part), LOOKUP), allow_nan=False))
    with pytest.raises(CheckpointError, match=r"exmp_input=next\(iter\(train_loader\)\)"):
        zeros_from_spec(spec, LOOKUP)


def test_a_batch_that_contains_itself_is_not_stored():
    batch = []
    batch.append(batch)
    assert "not_stored" in json.dumps(batch_spec(batch, LOOKUP))


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        [],
        {},
        "array",
        {"array": [2]},
        {"array": [2], "dtype": "O"},
        {"array": [-1], "dtype": "float32"},
        {"array": [True], "dtype": "float32"},
        {"array": [1.5], "dtype": "float32"},
        {"array": [1] * 100, "dtype": "float32"},
        {"array": [10**9], "dtype": "float32"},
        {"array": [10**18, 10**18], "dtype": "float32"},
        {"tuple": [{"array": [2**28], "dtype": "int8"}] * 5},
        {"array": 3, "dtype": "float32"},
        {"value": []},
        {"value": {"a": 1}},
        {"dict": []},
        {"list": 3},
        {"pickle": "x"},
        {"class": "trainer:Popen", "fields": {}},
        {"class": "trainer:Mlp", "fields": {}},
        {"class": "trainer:Pair", "fields": {"image": {"value": 1}}},
        {"class": "trainer:Pair"},
        {"class": "os:system", "fields": {}},
        {"class": 3, "fields": {}},
    ],
)
def test_other_specs_are_refused(spec):
    with pytest.raises(CheckpointError, match="Received"):
        zeros_from_spec({"list": [spec]}, LOOKUP)
    assert not project.CALLS


def test_a_deep_spec_is_refused():
    spec = {"value": 1}
    for _ in range(300):
        spec = {"list": [spec]}
    with pytest.raises(CheckpointError, match="too many levels"):
        zeros_from_spec(spec, LOOKUP)
