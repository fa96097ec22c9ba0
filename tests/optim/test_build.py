"""Tests of `boltax.optim._build`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.errors import OptimizerError, UnknownNameError
from boltax.optim import build, check_hparams, learning_rate

PARAMS = {"kernel": jnp.asarray([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.asarray([2.0, -1.0])}
GRADS = {"kernel": jnp.asarray([[3.0, 0.2], [-4.0, 0.4]]), "bias": jnp.asarray([0.1, 0.2])}


def train(tx: Any, steps: int = 4) -> Any:
    tx = optax.with_extra_args_support(tx)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        grads = jax.tree.map(lambda grad, param: grad + 0.1 * param, GRADS, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_same(found: Any, expected: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected
    )


def of_optax(make: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        return train(make())


def test_defaults_train_as_the_guide_without_its_silent_decay() -> None:
    def guide() -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 0, 20, end_value=1e-5)
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0))

    assert_same(train(build(None, 20).tx), of_optax(guide))
    assert build(None, 20).describe == build({}, 20).describe


def test_adamw_is_that_of_optax() -> None:
    hparams = {"lr": 0.1, "b1": 0.8, "weight_decay": 0.1, "warmup": 2, "gradient_clip": None}
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 20, end_value=1e-3)
    expected = of_optax(lambda: optax.adamw(schedule, b1=0.8, weight_decay=0.1))
    assert_same(train(build(hparams, 20).tx), expected)


def test_decay_of_sgd_passes_by_the_momentum() -> None:
    hparams = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    tx = build({**hparams, "schedule": "constant", "gradient_clip": None}, None).tx

    def by_hand() -> Any:
        params, momentum = PARAMS, jax.tree.map(jnp.zeros_like, PARAMS)
        for _ in range(4):
            grads = jax.tree.map(lambda grad, param: grad + 0.1 * param, GRADS, params)
            momentum = jax.tree.map(lambda m, grad: 0.9 * m + grad, momentum, grads)
            params = jax.tree.map(lambda p, m: p - 0.1 * (m + 0.1 * p), params, momentum)
        return params

    assert_same(train(tx), by_hand())


@pytest.mark.parametrize(
    ("clip", "make"),
    [
        (0.5, lambda: optax.clip_by_global_norm(0.5)),
        ({"value": 0.5}, lambda: optax.clip(0.5)),
        ({"adaptive": 0.01}, lambda: optax.adaptive_grad_clip(0.01)),
        (None, optax.identity),
    ],
)
def test_gradients_are_clipped_first(clip: Any, make: Any) -> None:
    hparams = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": clip}
    expected = of_optax(lambda: optax.chain(make(), optax.sgd(0.1)))
    assert_same(train(build(hparams, None).tx), expected)


def test_weight_decay_is_in_the_state() -> None:
    state = build({"weight_decay": 0.1}, 20).tx.init(PARAMS)
    assert optax.tree.get(state, "weight_decay") == pytest.approx(0.1)


def test_lbfgs_takes_a_learning_rate_where_one_is_given() -> None:
    state = build({"optimizer": "lbfgs", "lr": 0.5}, None).tx.init(PARAMS)
    assert learning_rate(state) == 0.5


def test_transformation_is_used_as_it_is() -> None:
    optimizer = build(optax.adam(0.1), None)
    assert_same(train(optimizer.tx), of_optax(lambda: optax.adam(0.1)))
    assert (optimizer.l2_regularization, optimizer.describe) == (
        0.0,
        "the given optax transformation",
    )


def test_accumulator_of_optax_is_a_transformation() -> None:
    tx = build(optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2), None).tx
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=jnp.asarray(1.0))
    assert_same(updates, jax.tree.map(jnp.zeros_like, GRADS))


def test_function_is_given_the_number_of_steps() -> None:
    seen: list[Any] = []

    def make(total_steps: int | None) -> optax.GradientTransformation:
        seen.append(total_steps)
        return optax.sgd(0.1)

    optimizer = build(make, 30)
    assert seen == [30]
    assert optimizer.describe == "the optax transformation from make(total_steps=30)"
    assert_same(train(optimizer.tx), of_optax(lambda: optax.sgd(0.1)))


def test_function_that_makes_something_else_is_an_error() -> None:
    with pytest.raises(OptimizerError, match=r"Received 0.1 .*expected an optax transformation"):
        build(lambda total_steps: 0.1, 30)


def test_error_in_a_function_names_it() -> None:
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        build(lambda total_steps: optax.sgd(0.1 * total_steps), None)
    assert "the function <lambda> (total_steps=None)" in caught.value.__notes__[0]


@pytest.mark.parametrize("hparams", ["adam", 0.1, optax.adam, dict])
def test_other_things_are_errors(hparams: Any) -> None:
    if hparams is optax.adam:  # a function, which makes a transformation from a learning rate
        check_hparams(hparams)
        return
    with pytest.raises(OptimizerError, match="expected a dict, an optax transformation"):
        build(hparams, 30)
    with pytest.raises(OptimizerError, match="expected a dict, an optax transformation"):
        check_hparams(hparams)


def test_the_dict_is_not_changed() -> None:
    hparams = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": {"name": "linear", "end": 0.1},
        "gradient_clip": {"norm": 1.0},
    }
    copy = jax.tree.map(lambda leaf: leaf, hparams)
    build(hparams, 20)
    assert hparams == copy


def test_unknown_length_is_an_error_only_where_it_matters() -> None:
    with pytest.raises(OptimizerError, match=r"schedule 'warmup_cosine' .the default. for a run"):
        build({}, None)
    with pytest.raises(OptimizerError, match="number of steps is unknown"):
        build({"warmup": 0.1, "schedule": "constant"}, None)
    assert build({"warmup": 10, "schedule": "constant"}, None).describe == (
        "adamw, lr 0.001 constant (warmup 10), clip norm 1"
    )


def test_run_of_no_steps_still_has_an_optimizer() -> None:
    assert build({}, 0).describe == "adamw, lr 0.001 warmup_cosine, clip norm 1"


def test_describe_names_everything_that_is_applied() -> None:
    hparams = {"lr": 0.01, "warmup": 0.1, "weight_decay": 0.01, "decay_mask": "kernels"}
    assert build(hparams, 4690).describe == (
        "adamw, lr 0.01 warmup_cosine (warmup 469 of 4690), clip norm 1, decay 0.01 on kernels"
    )
    hparams = {"optimizer": "lbfgs", "l2_regularization": 1e-4}
    assert build(hparams, None).describe == "lbfgs, l2 0.0001"


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"optimizer": "sdg"}, "Did you mean 'sgd'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"schedule": {"name": "cosine", "en": 1.0}}, "Did you mean 'end'"),
    ],
)
def test_check_sees_what_does_not_depend_on_the_length(hparams: Any, match: str) -> None:
    with pytest.raises(UnknownNameError, match=match):
        check_hparams(hparams)


def test_check_sees_errors_of_optax_and_names_the_optimizer() -> None:
    with pytest.raises(ValueError, match="ns_coeff") as caught:
        check_hparams({"optimizer": "muon", "ns_coeffs": "none"})
    assert caught.value.__notes__ == ["raised in optimizer 'muon' of optimizer_hparams"]


@pytest.mark.parametrize(
    "hparams",
    [None, {}, {"warmup": 100}, {"warmup": 0.1}, optax.sgd(0.1), lambda total_steps: 1 / 0],
)
def test_check_accepts_what_only_the_length_can_show(hparams: Any) -> None:
    check_hparams(hparams)


def test_mask_that_matches_nothing_is_an_error_before_the_first_step() -> None:
    tx = build({"weight_decay": 0.1, "decay_mask": "kernle"}, 20).tx
    with pytest.raises(OptimizerError, match=r"matches no parameter.*bias, kernel"):
        tx.init(PARAMS)


@pytest.mark.parametrize("name", ["lbfgs", "sophia", "polyak_sgd", "momo"])
def test_optimizer_that_is_not_given_the_loss_says_so(name: str) -> None:
    tx = build({"optimizer": name}, 20).tx
    with pytest.raises(OptimizerError, match=f"update of optimizer '{name}' with gradients alone"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
