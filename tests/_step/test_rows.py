"""Copies of trees, and rows of members, moved about on the device."""

import gc
import weakref

import jax.numpy as jnp
import numpy as np
from flax import struct

from boltax._step._rows import compile_copy, compile_members


def test_rows_of_members_are_stacked_gathered_taken_and_chosen():
    rows = compile_members()
    pair = rows.stack({"w": jnp.float32(1)}, {"w": jnp.float32(2)})
    assert pair["w"].tolist() == [1, 2]
    both = rows.gather((pair, {"w": jnp.array([3.0, 4.0])}), np.array([3, 0, 2]))
    assert both["w"].tolist() == [4, 1, 3]
    assert rows.one(both, np.int32(2))["w"].tolist() == 3
    no = jnp.zeros((3, 2))
    chosen = rows.choose(np.array([True, False, True]), jnp.ones((3, 2)), no)
    assert chosen.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert no.is_deleted()  # its memory is used again


def test_a_copy_goes_into_new_memory_or_that_of_another():
    copy, tree = compile_copy(), {"w": jnp.arange(3.0)}
    first = copy(tree, None)
    second = copy({"w": tree["w"] + 1}, first)
    assert second["w"].tolist() == [1, 2, 3]
    assert first["w"].is_deleted()
    assert not tree["w"].is_deleted()


def test_nothing_of_a_tree_but_its_shapes_is_kept():
    class Optimizer:
        """Stands for what a state holds beside arrays."""

    @struct.dataclass
    class State:
        count: object
        optimizer: Optimizer = struct.field(pytree_node=False)

    optimizer = Optimizer()
    state = State(jnp.arange(3.0), optimizer)
    copy = compile_copy()(state, None)
    row = compile_members().one(copy, np.int32(2))
    assert copy.optimizer is row.optimizer is optimizer
    assert float(row.count) == 2
    kept = weakref.ref(optimizer)
    del optimizer, state, copy, row
    gc.collect()
    assert kept() is None
