"""Tests of `boltax.optim._optax_schedules`: every schedule of optax equals optax's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.errors import OptimizerError, UnknownNameError
from boltax.optim._horizon import Horizon
from boltax.optim._optax_schedules import optax_schedule, optax_schedules

# name: what the user writes, `warmup`, and what optax is given. `lr` is 0.2 and the run 100 steps.
EVERY: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "constant_schedule": ({}, 0, {"value": 0.2}),
    "cosine_decay_schedule": ({"alpha": 0.1}, 0, {"init_value": 0.2, "decay_steps": 100}),
    "cosine_onecycle_schedule": ({}, 0, {"peak_value": 0.2, "transition_steps": 100}),
    "exponential_decay": (
        {"decay_rate": 0.5, "end_value": 0.12, "transition_begin": 10},
        0,
        {"init_value": 0.2, "transition_steps": 90},
    ),
    "linear_onecycle_schedule": ({}, 0, {"peak_value": 0.2, "transition_steps": 100}),
    "linear_schedule": ({"end_value": 0.05}, 0, {"init_value": 0.2, "transition_steps": 100}),
    "piecewise_constant_schedule": (
        {"boundaries_and_scales": {40: 0.5}},
        0,
        {"init_value": 0.2},
    ),
    "piecewise_interpolate_schedule": (
        {"interpolate_type": "cosine", "boundaries_and_scales": {40: 0.5, 80: 0.1}},
        0,
        {"init_value": 0.2},
    ),
    "polynomial_schedule": (
        {"end_value": 0.01, "power": 2, "transition_begin": 20},
        0,
        {"init_value": 0.2, "transition_steps": 80},
    ),
    "sgdr_schedule": (
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 5, "decay_steps": 50},
                {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 50},
            ]
        },
        0,
        {},
    ),
    "warmup_constant_schedule": (
        {},
        10,
        {"init_value": 0.0, "peak_value": 0.2, "warmup_steps": 10},
    ),
    "warmup_cosine_decay_schedule": (
        {"init_value": 0.1, "end_value": 0.02},
        10,
        {"peak_value": 0.2, "warmup_steps": 10, "decay_steps": 100},
    ),
    "warmup_exponential_decay_schedule": (
        {"decay_rate": 0.1},
        10,
        {"init_value": 0.0, "peak_value": 0.2, "warmup_steps": 10, "transition_steps": 90},
    ),
}


def test_the_table_has_every_schedule_of_optax() -> None:
    """Fails for a schedule that is new in optax: add it here, and look at what is filled in."""
    assert sorted(EVERY) == sorted(optax_schedules())


@pytest.mark.parametrize("name", EVERY)
def test_equals_that_of_optax(name: str) -> None:
    written, warmup, filled = EVERY[name]
    lr = None if name == "sgdr_schedule" else 0.2
    schedule = optax_schedule(name, dict(written), lr, 1e-3, Horizon(100, warmup))
    reference = getattr(optax.schedules, name)(**written, **filled)
    assert schedule.shape is not None
    for step in (0, 3, 10, 40, 75, 100, 120):
        count = jnp.asarray(step, jnp.int32)
        with jax.numpy_dtype_promotion("standard"):
            expected = np.asarray(reference(count), np.float32)
        np.testing.assert_allclose(schedule.base * schedule.shape(count), expected, rtol=1e-5)


def test_own_value_stands_for_the_learning_rate() -> None:
    schedule = optax_schedule("constant_schedule", {"value": 0.3}, None, 1e-3, Horizon(None, 0))
    assert schedule.base == 0.3
    assert schedule.describe == "lr 0.3 constant_schedule"


def test_default_learning_rate_is_used_where_none_is_given() -> None:
    arguments = {"end_value": 0.0}
    assert optax_schedule("linear_schedule", arguments, None, 1e-3, Horizon(10, 0)).base == 1e-3


def test_learning_rate_of_zero_stays_zero() -> None:
    arguments = {"end_value": 0.0}
    schedule = optax_schedule("linear_schedule", arguments, 0.0, 1e-3, Horizon(10, 0))
    assert schedule.shape is not None
    assert schedule.base * schedule.shape(jnp.asarray(3)) == 0.0


@pytest.mark.parametrize(
    ("name", "arguments", "lr", "warmup", "match"),
    [
        ("constant_schedule", {"value": 1.0}, 0.1, 0, "Received lr=0.1 beside .* set by value"),
        ("sgdr_schedule", {"cosine_kwargs": []}, 0.1, 0, "set by peak_value in cosine_kwargs"),
        ("linear_schedule", {"end_value": 0.0}, 0.1, 5, "Received warmup=5 beside"),
        ("linear_schedule", {}, 0.1, 0, "expected end_value too"),
        ("warmup_constant_schedule", {"warmup_steps": 3}, 0.1, 5, "Received warmup=5 beside"),
    ],
)
def test_contradictions_are_reported(
    name: str, arguments: dict[str, Any], lr: float, warmup: int, match: str
) -> None:
    with pytest.raises(OptimizerError, match=match):
        optax_schedule(name, arguments, lr, 1e-3, Horizon(100, warmup))


def test_unknown_argument_is_reported() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'end_value'"):
        optax_schedule("linear_schedule", {"end_valu": 0.0}, None, 1e-3, Horizon(10, 0))


def test_error_of_optax_names_the_schedule() -> None:
    arguments = {"interpolate_type": "cubic"}
    with pytest.raises(ValueError, match="interpolate_type") as caught:
        optax_schedule("piecewise_interpolate_schedule", arguments, 0.1, 1e-3, Horizon(10, 0))
    assert "piecewise_interpolate_schedule" in caught.value.__notes__[0]


def test_without_a_warmup_the_peak_is_where_it_starts() -> None:
    """Where optax would stay at 0 for the whole run."""
    schedule = optax_schedule("warmup_constant_schedule", {}, 0.2, 1e-3, Horizon(100, 0))
    assert schedule.shape is not None
    assert schedule.base * float(schedule.shape(jnp.asarray(3))) == pytest.approx(0.2)
