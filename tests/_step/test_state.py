"""The train state and what it hands to optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax import TrainState
from boltax._step._state import is_traced_hyperparameter, split_collections, variables_of


def make_state(tx, **fields):
    return TrainState.create(apply_fn=None, params={"w": jnp.ones(3)}, tx=tx, **fields)


def test_apply_gradients_counts_steps_and_replaces_fields():
    state = make_state(optax.sgd(0.5), batch_stats={"m": jnp.zeros(1)})
    state = state.apply_gradients(
        grads={"w": jnp.ones(3)}, batch_stats={"m": jnp.ones(1)}, rng="other"
    )
    np.testing.assert_array_equal(state.params["w"], 0.5)
    assert (int(state.step), float(state.batch_stats["m"][0]), state.rng) == (1, 1.0, "other")


@pytest.mark.parametrize("name", ["value", "loss"])
def test_the_loss_reaches_optimizers_that_take_extra_arguments(name):
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(extra[name])
        return updates, state

    tx = optax.chain(
        optax.clip(1.0),
        optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update),
    )
    make_state(tx).apply_gradients(grads={"w": jnp.ones(3)}, loss=jnp.float32(2.5))
    assert seen == [2.5]


def test_variables_go_into_a_state_and_come_out_of_it():
    variables = {
        "params": {"w": jnp.ones(3)},
        "batch_stats": {"m": jnp.zeros(1)},
        "cache": {"c": jnp.zeros(2)},
    }
    state = make_state(optax.sgd(0.1), **split_collections(variables))
    jax.tree.map(np.testing.assert_array_equal, variables_of(state), variables)
    assert split_collections({"params": {}}) == {"batch_stats": None, "collections": None}


def test_floats_are_traced_hyperparameters_and_what_shapes_a_program_is_not():
    assert is_traced_hyperparameter(0.1)
    assert not any(is_traced_hyperparameter(value) for value in (3, True, "adam", None, [0.1]))
