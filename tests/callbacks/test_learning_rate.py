"""The learning rate is that of the optimizer's state, wherever it lies."""

from types import SimpleNamespace

import jax.numpy as jnp
import optax
import pytest

from boltax.callbacks import LearningRateMonitor, Log
from boltax.errors import ConfigurationError

PARAMS = {"w": jnp.zeros(3)}


def state_of(tx, steps=0):
    opt_state = tx.init(PARAMS)
    for _ in range(steps):
        _, opt_state = tx.update({"w": jnp.ones(3)}, opt_state, PARAMS)
    return SimpleNamespace(opt_state=opt_state)


@pytest.mark.parametrize("key", ["lr", "optimizer/lr"])
def test_logs_a_python_float_under_its_key(view, key):
    logged = LearningRateMonitor(key).on_log(view())
    assert logged == Log({key: 0.125})
    assert type(logged.metrics[key]) is float


def test_follows_the_schedule(view):
    schedule = optax.linear_schedule(1.0, 0.0, 8)
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=schedule))
    rates = [
        LearningRateMonitor().on_log(view(state=state_of(tx, n))).metrics["lr"] for n in (1, 3)
    ]
    assert rates == [1.0, 0.75]


def test_an_optimizer_without_one_is_an_error_before_training(view):
    seen = view(state=state_of(optax.sgd(0.1)))
    with pytest.raises(ConfigurationError, match=r"holds no learning rate.*inject_hyperparams\("):
        LearningRateMonitor().on_training_start(seen)


def test_an_optimizer_with_one_is_none(view):
    assert LearningRateMonitor().on_training_start(view()) is None
