"""Tests of `boltax.optim._named`: several optimizers, each for one part of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax import TrainState, optim
from boltax.errors import OptimizerError, UnknownNameError

SGD = {"optimizer": "sgd", "lr": 0.5, "schedule": "constant", "gradient_clip": None}
ADAM = {"optimizer": "adam", "lr": 0.1, "schedule": "constant"}
BOTH = {"optimizers": {"generator": ADAM, "critic": SGD}}
PARAMS = {"generator": {"w": jnp.ones(3)}, "critic": {"w": jnp.full(2, 2.0)}}
GRADS = jax.tree.map(lambda leaf: 0.5 * leaf, PARAMS)


def state_of(hparams: Any) -> Any:
    tx = optim.build(hparams, total_steps=10).tx
    return TrainState.create(apply_fn=None, params=PARAMS, tx=tx)


def test_each_part_has_its_optimizer() -> None:
    state = state_of(BOTH).apply_gradients(grads=GRADS)
    for name, hparams in BOTH["optimizers"].items():
        alone = optim.build(hparams, 10).tx
        updates, _ = alone.update(GRADS[name], alone.init(PARAMS[name]), PARAMS[name])
        np.testing.assert_allclose(state.params[name]["w"], PARAMS[name]["w"] + updates["w"])
    assert int(state.step) == 1


def test_one_part_is_updated_and_the_other_stays_bitwise() -> None:
    before = state_of(BOTH)
    state = before.apply_gradients(grads={"critic": GRADS["critic"]})
    np.testing.assert_allclose(state.params["critic"]["w"], 1.5)
    for tree in ("params", "opt_state"):
        old, new = (getattr(s, tree) for s in (before, state))
        old, new = (t.parts if tree == "opt_state" else t for t in (old, new))
        jax.tree.map(np.testing.assert_array_equal, new["generator"], old["generator"])
    assert int(state.step) == 0  # a training step may go on with the other part


def test_one_after_the_other_is_both_at_once() -> None:
    one = state_of(BOTH)
    for name in ("critic", "generator"):
        one = one.apply_gradients(grads={name: GRADS[name]})
    both = state_of(BOTH).apply_gradients(grads=GRADS)
    jax.tree.map(np.testing.assert_array_equal, one.params, both.params)
    jax.tree.map(np.testing.assert_array_equal, one.opt_state, both.opt_state)


def test_every_learning_rate_is_told_by_its_name() -> None:
    hparams = {"optimizers": {"generator": ADAM, "critic": {"optimizer": "polyak_sgd"}}}
    assert optim.learning_rate(state_of(hparams).opt_state) == {
        "generator": pytest.approx(0.1),
        "critic": None,
    }


def test_a_part_may_search_along_a_line() -> None:
    targets = {"generator": 3.0, "critic": -1.0}

    def loss_of(params: Any) -> jax.Array:
        losses = [jnp.sum(jnp.square(params[name]["w"] - targets[name])) for name in params]
        return sum(losses, jnp.zeros(()))

    def update(state: Any) -> Any:
        part = {"generator": state.params["generator"]}
        loss, grads = jax.value_and_grad(loss_of)(part)
        return state.apply_gradients(grads=grads, loss=loss, value_fn=loss_of)

    state = state_of({"optimizers": {"generator": {"optimizer": "lbfgs"}, "critic": SGD}})
    for _ in range(3):
        state = jax.jit(update)(state)
    np.testing.assert_allclose(state.params["generator"]["w"], 3.0, rtol=1e-4)
    np.testing.assert_array_equal(state.params["critic"]["w"], PARAMS["critic"]["w"])


def test_each_part_may_have_a_loss_of_its_own() -> None:
    polyak = {"optimizer": "polyak_sgd", "max_learning_rate": 1e6}
    state = state_of({"optimizers": {"generator": polyak, "critic": polyak}})
    losses = {"generator": jnp.asarray(0.75), "critic": jnp.asarray(4.0)}
    new = state.apply_gradients(grads=GRADS, loss=losses).params
    for name, loss in losses.items():  # the step of Polyak: loss / |grad|^2
        grad = np.asarray(GRADS[name]["w"])
        expected = np.asarray(PARAMS[name]["w"]) - loss / np.sum(grad**2) * grad
        np.testing.assert_allclose(new[name]["w"], expected, rtol=1e-4)


def test_options_by_path_see_the_paths_inside_a_part() -> None:
    hparams = {"optimizers": {"generator": {**ADAM, "freeze": "^w$"}, "critic": SGD}}
    with pytest.raises(OptimizerError, match="freezes every parameter"):
        state_of(hparams)


def test_a_factory_and_a_transformation_serve_as_well() -> None:
    hparams = {
        "generator": lambda total_steps: optax.sgd(1.0 / total_steps),
        "critic": optax.sgd(1.0),
    }
    state = state_of({"optimizers": hparams}).apply_gradients(grads=GRADS)
    np.testing.assert_allclose(state.params["generator"]["w"], 1.0 - 0.5 / 10)
    np.testing.assert_allclose(state.params["critic"]["w"], 1.0)


@pytest.mark.parametrize(
    ("names", "error", "match"),
    [
        (("generator", "critc"), UnknownNameError, "'critc'; .* Did you mean 'critic'"),
        (("generator",), OptimizerError, "one for each part .*Write one for critic too"),
    ],
)
def test_names_are_those_of_the_parameters(names: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        state_of({"optimizers": dict.fromkeys(names, SGD)})


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"optimizers": {"a": SGD}, "lr": 0.1}, "Received lr beside optimizers; expected"),
        ({"optimizers": []}, r"optimizers=\[\]; expected a dict"),
        ({"optimizers": {"a": {"optimizer": "sdg"}}}, "Did you mean 'sgd'"),
        ({"optimizers": {"a": {"l2_regularization": 0.1}}}, r"expected it in the loss.*l2_penalty"),
        ({"optimizers": {"a": {"optimizers": {"b": SGD}}}}, "optimizers inside the optimizer of a"),
        ({"optimizers": {"a": 3}}, "optimizer_hparams=3"),
    ],
)
def test_bad_settings_say_what_to_write(hparams: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        optim.check_hparams(hparams)


def test_an_error_names_the_part() -> None:
    with pytest.raises(UnknownNameError, match="sdg") as caught:
        optim.build({"optimizers": {"critic": {"optimizer": "sdg"}}}, None)
    assert "raised in optimizer_hparams['optimizers']['critic']" in caught.value.__notes__


@pytest.mark.parametrize(
    ("hparams", "grads", "error", "match"),
    [
        (BOTH, ("crtic",), UnknownNameError, "Did you mean 'critic'"),
        (SGD, ("critic",), OptimizerError, r"because one optimizer has them all.*\"optimizers\""),
    ],
)
def test_gradients_are_those_of_known_parts(
    hparams: Any, grads: Any, error: Any, match: str
) -> None:
    with pytest.raises(error, match=match):
        state_of(hparams).apply_gradients(grads=dict.fromkeys(grads, GRADS["critic"]))
