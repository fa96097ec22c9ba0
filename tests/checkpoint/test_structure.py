import json
from typing import NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from boltax.checkpoint._structure import (
    arrays_of,
    children_of,
    parts_of,
    rebuilt,
    structure_of,
    walk,
)
from boltax.errors import CheckpointError


class Pair(NamedTuple):
    a: object
    b: object


@struct.dataclass
class State:
    x: object
    name: str = struct.field(pytree_node=False, default="s")


ARRAY = np.zeros((2, 3), np.float32)
STRUCTURES = [
    ({"params": {"w": ARRAY}}, {"params": {"w": "float32[2, 3]"}}),
    ({"params": {}, "none": None}, {"params": {}, "none": None}),
    ([ARRAY, (ARRAY, 3)], ["float32[2, 3]", {"__tuple__": ["float32[2, 3]", "python int"]}]),
    ((), {"__tuple__": []}),
    ({"__tuple__": ARRAY}, {"__key____tuple__": "float32[2, 3]"}),
    (
        Pair(None, {"w": 0.5}),
        {"__node__": {"type": "Pair", "children": {"a": None, "b": {"w": "python float"}}}},
    ),
    (State(x=True), {"__node__": {"type": "State", "children": {"x": "python bool"}}}),
    (flax.core.freeze({"w": ARRAY}), {"w": "float32[2, 3]"}),
]


@pytest.mark.parametrize(("tree", "structure"), STRUCTURES)
def test_a_structure_has_the_form_of_its_tree(tree, structure):
    assert structure_of(tree) == structure
    assert json.loads(json.dumps(structure)) == structure


@pytest.mark.parametrize(("tree", "structure"), STRUCTURES)
def test_a_structure_has_the_levels_of_its_tree(tree, structure):
    (kind, children), (stored_kind, parts) = children_of(tree), parts_of(structure)
    assert kind == stored_kind
    assert [name for name, _ in children] == [name for name, _ in parts]


@pytest.mark.parametrize(("tree", "structure"), STRUCTURES)
def test_a_container_is_rebuilt_with_other_children(tree, structure):
    again = rebuilt(tree, dict(children_of(tree)[1]))
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert type(again) is type(tree)


def test_the_structure_of_shapes_is_that_of_arrays():
    state = optax.adam(1e-3).init({"w": jnp.zeros((2, 3)), "key": jax.random.key(0)})
    assert structure_of(jax.eval_shape(lambda: state)) == structure_of(state)


def test_arrays_are_listed_by_name():
    tree = {"a": [ARRAY, None], "b": Pair({}, (ARRAY,))}
    assert [names for names, _ in arrays_of(structure_of(tree))] == [("a", "0"), ("b", "b", "0")]
    assert dict(walk(structure_of(tree))) == {
        ("a",): "list",
        ("a", "0"): "float32[2, 3]",
        ("a", "1"): "None",
        ("b",): "Pair",
        ("b", "a"): "empty dict",
        ("b", "b"): "tuple",
        ("b", "b", "0"): "float32[2, 3]",
    }


def test_keys_have_to_be_strings():
    with pytest.raises(CheckpointError, match="a dict with the key 3 at params"):
        structure_of({"params": {3: ARRAY}})


@pytest.mark.parametrize(
    "structure",
    [
        3,
        True,
        "params",
        {"__tuple__": {}},
        {"__tuple__": [], "other": None},
        {"__node__": []},
        {"__node__": {"type": "dict", "children": {}}},
        {"__node__": {"type": "float32[3]", "children": {}}},
        {"__node__": {"type": "Pair", "children": {}}, "__tuple__": []},
    ],
)
def test_what_is_no_structure_is_refused(structure):
    with pytest.raises(CheckpointError, match=r"structure\.json"):
        list(arrays_of({"inside": structure}))
