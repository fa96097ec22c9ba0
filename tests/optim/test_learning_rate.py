"""Tests of `boltax.optim._learning_rate`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import struct

from boltax.optim import build, learning_rate

PARAMS = {"w": jnp.ones(3)}


def update(tx: optax.GradientTransformationExtraArgs, state: Any) -> Any:
    return tx.update(PARAMS, state, PARAMS)[1]


def test_is_that_of_the_last_update() -> None:
    tx = build({"lr": 0.5, "warmup": 2, "schedule": "constant"}, None).tx
    state, found = tx.init(PARAMS), []
    for _ in range(4):
        found.append(float(learning_rate(state)))
        state = update(tx, state)
    assert [*found, float(learning_rate(state))] == [0.0, 0.0, 0.25, 0.5, 0.5]


def test_is_found_however_deep() -> None:
    @struct.dataclass
    class Wrapped:
        inner: Any

    inner = optax.inject_hyperparams(optax.sgd)(learning_rate=0.25)
    tx = optax.MultiSteps(optax.chain(optax.clip(1.0), inner), every_k_schedule=2)
    state = {"generator": [Wrapped(tx.init(PARAMS))]}
    assert learning_rate(state) == 0.25


def test_is_none_where_the_state_has_none() -> None:
    assert learning_rate(optax.adam(1e-3).init(PARAMS)) is None
    assert learning_rate(()) is None


def test_is_traced_inside_jit() -> None:
    tx = build({"lr": 0.5, "schedule": "constant"}, None).tx
    assert jax.jit(learning_rate)(tx.init(PARAMS)) == 0.5


def with_base(state: Any, value: Any) -> Any:
    """The state with another base learning rate, wherever it is."""

    def replace(path: Any, leaf: Any) -> Any:
        is_base = jax.tree_util.keystr(path).endswith(".base")
        return jnp.asarray(value, jnp.float32) if is_base else leaf

    return jax.tree_util.tree_map_with_path(replace, state)


def test_base_is_in_the_state_and_not_in_the_program() -> None:
    """Runs that differ in the learning rate alone are one program, and a population can vary it."""
    small, large = (build({"lr": lr, "warmup": 5}, total_steps=50).tx for lr in (0.1, 0.3))
    programs = [
        jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS), PARAMS).as_text() for tx in (small, large)
    ]
    assert programs[0] == programs[1]
    state = with_base(small.init(PARAMS), 0.3)
    for _ in range(4):
        state = update(small, state)
    assert learning_rate(state) == pytest.approx(0.3 * 3 / 5)


def test_constant_can_be_set_in_the_state() -> None:
    tx = build({"optimizer": "sgd", "lr": 0.1, "schedule": "constant"}, None).tx

    def first_update(lr: jax.Array) -> jax.Array:
        state = optax.tree.set(tx.init(PARAMS), learning_rate=lr)
        return tx.update({"w": jnp.full(3, 0.5)}, state, PARAMS)[0]["w"]

    found = jax.vmap(first_update)(jnp.asarray([0.1, 0.2]))
    assert found[:, 0].tolist() == pytest.approx([-0.05, -0.1])
