"""Arrays that several processes hold together: put there from each, and brought to the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from boltax._base._types import PyTree


def put_by_all(tree: PyTree, shardings: PyTree) -> PyTree:
    """Arrays of which each process has the whole, put where they belong; nothing is compared.

    Args:
        tree: NumPy arrays, arrays of this process, or such as are on the devices already.
        shardings: one for each of them, or for all.
    """
    if isinstance(shardings, Sharding):
        sharding = shardings
        return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)
    return jax.tree.map(_put, tree, shardings)


def _put(leaf: Any, sharding: Any) -> Any:
    if isinstance(leaf, jax.Array):
        if leaf.sharding == sharding:
            return leaf
        if not leaf.is_fully_addressable:
            return _moved(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            numbers = _put(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
        leaf = jax.device_get(leaf)
    host = np.asarray(leaf)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    with jax.transfer_guard("allow"):
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def _moved(leaf: Any, sharding: Any) -> Any:
    return jax.jit(lambda array: array, out_shardings=sharding)(leaf)


def gathered(array: Any) -> Any:
    """Arrays of one shape, one of each process, as a NumPy array ``[processes, ...]``."""
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.process_allgather(array))


def to_host(tree: PyTree) -> PyTree:
    """Whole NumPy arrays in every process, which all of them ask for."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        with jax.transfer_guard("allow"):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)
