"""Copies of trees on the device."""

import gc
import weakref

import jax.numpy as jnp
from flax import struct

from boltax._step._copies import compile_copy


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
    assert copy.optimizer is optimizer
    assert copy.count.tolist() == [0, 1, 2]
    kept = weakref.ref(optimizer)
    del optimizer, state, copy
    gc.collect()
    assert kept() is None
