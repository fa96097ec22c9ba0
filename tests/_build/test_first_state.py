"""The first state, with the hyperparameters that it holds and the optimizer that it begins with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._build._first_state import (
    build_optimizer,
    state_with_optimizer,
    state_without_optimizer,
    traced_hparams,
)
from boltax.errors import OptimizerError
from boltax.models._adapter import adapt
from dummies import Classifier, GuideRegressor, Linear

ADAPTER = adapt(Linear, {})
HPARAMS = {"beta": 0.5, "name": "x", "count": 3}


def first():
    variables = ADAPTER.model.init(jax.random.key(0), jnp.ones((2, 4)))
    return state_without_optimizer(ADAPTER, HPARAMS, variables, jax.random.key(1))


def test_floats_live_in_the_state_and_other_hyperparameters_do_not():
    traced = traced_hparams(HPARAMS)
    assert set(traced) == {"beta"}
    assert (traced["beta"].dtype, float(traced["beta"])) == (jnp.float32, 0.5)


def test_the_state_without_optimizer_is_at_step_0_with_all_variables():
    state = first()
    assert (int(state.step), state.tx, state.opt_state) == (0, None, None)
    assert state.params["Dense_0"]["kernel"].shape == (4, 1)
    assert state.hparams == {"beta": 0.5}


def test_an_optimizer_begins_at_step_0_and_an_l2_penalty_is_a_hyperparameter():
    settings = {"optimizer": "sgd", "lr": 0.1, "l2_regularization": 0.01}
    optimizer = build_optimizer(settings, 10, Classifier)
    before = np.array(first().params["Dense_0"]["kernel"])
    state = state_with_optimizer(first(), optimizer, HPARAMS, bx.LoopOptions(ema=0.9))
    np.testing.assert_array_equal(state.params["Dense_0"]["kernel"], before)
    assert float(state.hparams["l2_regularization"]) == pytest.approx(0.01)
    assert state.ema is not None
    assert state.loss_scale is None


def test_an_l2_penalty_needs_a_loss_that_boltax_knows():
    with pytest.raises(OptimizerError, match="GuideRegressor, whose create_functions"):
        build_optimizer({"l2_regularization": 0.01}, 10, GuideRegressor)
