"""Tests of `boltax.optim._schedules`: ours, the user's own, and which name means what."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from boltax.errors import OptimizerError, UnknownNameError
from boltax.optim._horizon import Horizon
from boltax.optim._schedules import names, resolve

RUN = Horizon(total_steps=100, warmup=20)


def rate(spec: Any, step: int, run: Horizon = RUN, lr: float | None = 0.5) -> float:
    schedule = resolve(spec, lr, 1e-3, run)
    factor = 1.0 if schedule.shape is None else schedule.shape(jnp.asarray(step, jnp.int32))
    return float(schedule.base * jnp.asarray(factor, jnp.float32))


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("constant", 0.5),
        ("cosine", 0.0),
        ("exponential", 0.005),
        ("linear", 0.0),
        ("warmup_cosine", 0.005),
    ],
)
def test_ours_rise_in_the_warmup_and_fall_in_the_rest(name: str, end: float) -> None:
    assert [rate(name, step) for step in (0, 10, 20)] == pytest.approx([0.0, 0.25, 0.5])
    assert rate(name, 100) == pytest.approx(end, abs=1e-7)
    assert rate(name, 1000) == pytest.approx(end, abs=1e-7)


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "linear", "warmup_cosine"])
def test_ours_start_at_the_learning_rate_without_warmup(name: str) -> None:
    assert rate(name, 0, Horizon(100, 0)) == pytest.approx(0.5)


def test_default_is_that_of_the_guide() -> None:
    guide = optax.warmup_cosine_decay_schedule(0.0, 0.5, 20, 100, end_value=0.005)
    with jax.numpy_dtype_promotion("standard"):
        expected = [float(guide(step)) for step in range(0, 101, 5)]
    found = [rate("warmup_cosine", step) for step in range(0, 101, 5)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_piecewise_takes_steps_fractions_and_text() -> None:
    for boundaries in ({50: 0.1, 75: 0.1}, {0.5: 0.1, 0.75: 0.1}, {"50": 0.1, "0.75": 0.1}):
        spec = {"name": "piecewise", "boundaries": boundaries}
        found = [rate(spec, step) for step in (10, 20, 49, 50, 75, 100)]
        assert found == pytest.approx([0.25, 0.5, 0.5, 0.05, 0.005, 0.005])


def test_arguments_come_in_a_dict_that_is_not_changed() -> None:
    spec = {"name": "linear", "end": 0.5}
    assert rate(spec, 100) == pytest.approx(0.25)
    assert spec == {"name": "linear", "end": 0.5}


def test_function_of_the_user_is_the_learning_rate_itself() -> None:
    run = Horizon(None, 0)
    assert rate(lambda step: 0.1 / (step.astype(jnp.float32) + 1.0), 3, run, lr=None) == (
        pytest.approx(0.025)
    )


def test_constant_needs_no_number_of_steps() -> None:
    assert resolve("constant", None, 1e-3, Horizon(None, 0)).shape is None
    assert rate(None, 5, Horizon(None, 10)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "name", ["cosine", "exponential", "linear", "warmup_cosine", {"name": "linear_schedule"}]
)
def test_unknown_length_says_what_to_write(name: Any) -> None:
    if isinstance(name, dict):
        name = {**name, "end_value": 0.0}
    match = r'LoopOptions\(steps_per_epoch=.*max_steps=.*schedule="constant"'
    with pytest.raises(OptimizerError, match=match):
        resolve(name, None, 1e-3, Horizon(None, 0))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("warmup_cosin", "Did you mean 'warmup_cosine'"),
        ({"end": 0.1}, "schedule None; expected one of"),
        ({"name": ["cosine"]}, "expected one of"),
        ({"name": "cosine", "ende": 0.1}, "argument of schedule 'cosine' 'ende'.*Did you mean"),
    ],
)
def test_unknown_names_are_reported(spec: Any, match: str) -> None:
    with pytest.raises(UnknownNameError, match=match):
        resolve(spec, None, 1e-3, RUN)


@pytest.mark.parametrize(
    ("spec", "lr", "run", "match"),
    [
        ({"name": "piecewise"}, None, RUN, "expected boundaries too"),
        (lambda step: 0.1, 0.5, Horizon(100, 0), "Received lr=0.5 beside the function <lambda>"),
        (lambda step: 0.1, None, RUN, "Received warmup=20 beside the function <lambda>"),
        (lambda step: jnp.ones(3), None, Horizon(100, 0), "expected a scalar"),
    ],
)
def test_contradictions_are_reported(spec: Any, lr: float | None, run: Horizon, match: str) -> None:
    with pytest.raises(OptimizerError, match=match):
        resolve(spec, lr, 1e-3, run)


def test_error_in_the_users_function_names_the_schedule() -> None:
    def broken(step: Any) -> float:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        resolve(broken, None, 1e-3, Horizon(100, 0))
    assert "raised in schedule of optimizer_hparams" in caught.value.__notes__


def test_names_are_sorted_and_distinct() -> None:
    assert list(names()) == sorted(set(names()))
