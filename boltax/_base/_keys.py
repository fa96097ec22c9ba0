"""Random keys of a run: each is a pure function of (root key, name, step).

Nothing here splits a key in Python across steps; keys are typed (`jax.random.key`).
"""

import zlib

import jax


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """The key of the stream called `name` under `key`; other names give independent streams."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(root: jax.Array, phase: str, step: jax.Array) -> jax.Array:
    """The key of one step of a phase; traced, `step` is an integer scalar."""
    return jax.random.fold_in(fold_name(root, phase), step)
