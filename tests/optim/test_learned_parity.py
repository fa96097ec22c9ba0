"""Every golden trajectory of the reference implementations, within the tolerances stated there.

The data are no part of the repository; their README has the tolerances.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.optim._learned import LearnedState
from boltax.optim._learned_features import (
    loss_features,
    tensor_features,
    time_features,
    update_trend,
)
from boltax.optim._learned_scheduler import dense, step_sizes
from boltax.optim._learned_weights import load_weights
from learned_weights import MAKERS, PUBLISHED, REFERENCE

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the golden trajectories of ../shared/data/lopt are not here"
)

FILES = {
    "velo": ("velo", "velo_theta.params"),
    "velo_small": ("velo", "velo_small_theta.params"),
    "celo": ("celo", "celo.theta.state"),
    "celo_adam": ("celo_adam", "celo_adam.theta.state"),
}
CASES = """
    base large large_all neg_loss shapes short single tiny_grad zero_leaf zero_params zero_step
"""
SLOW = {"shapes", "short", "single"}  # those of other shapes, or another length, compile anew


def case(name: str, *values: str) -> Any:
    is_slow = name == "velo" or (name != "celo_adam" and SLOW & {*values})
    return pytest.param(name, *values, marks=[pytest.mark.slow] if is_slow else [])


@functools.cache
def read(file: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / f"{file}.npz", allow_pickle=False) as found:
        return dict(found)


def under(found: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}


@functools.cache
def transformation(name: str, num_steps: int, **options: Any) -> Any:
    maker, weights = FILES[name]
    tx = MAKERS[maker](num_steps, REFERENCE / weights, **options)
    return tx.init, jax.jit(tx.update)


def trajectory(
    name: str, inputs: str, weight_decay: float = 0.0, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Parameters and states of 12 steps, the start included."""
    found = read("inputs")
    init, update = transformation(name, int(found[f"{inputs}.num_steps"]), **options)
    params = under(found, f"{inputs}.params0.")
    grads, losses = under(found, f"{inputs}.grads."), found[f"{inputs}.losses"]
    all_params, states = [params], [init(params)]
    for step in range(12):
        gradient = {key: value[step] for key, value in grads.items()}
        loss = losses[step]
        if weight_decay:  # of the reference's wrapper: the penalty has no factor of a half
            squares = [np.sum(np.square(value)) for value in params.values()]
            loss = np.float32(loss + weight_decay * sum(squares))
            gradient = {k: np.float32(g + weight_decay * params[k]) for k, g in gradient.items()}
        updates, state = update(gradient, states[-1], params, value=jnp.asarray(loss))
        params = jax.device_get(optax.apply_updates(params, updates))
        all_params.append(params)
        states.append(state)
    return all_params, states


def check(found: list[Any], golden: dict[str, np.ndarray]) -> None:
    assert found[0].keys() == golden.keys()
    for key, wanted in golden.items():
        have = np.stack([params[key] for params in found])
        np.testing.assert_allclose(have[1:], wanted, atol=3e-5, rtol=1e-4, err_msg=key)
        updates = np.diff(np.concatenate([have[:1], wanted]), axis=0)
        limit = 1e-6 + 1e-3 * np.abs(updates).max()
        np.testing.assert_allclose(np.diff(have, axis=0), updates, atol=limit, rtol=0, err_msg=key)


@pytest.mark.parametrize(
    "name, inputs", [case(name, inputs) for name in FILES for inputs in CASES.split()]
)
def test_parameters_and_updates_are_those_of_the_reference(name, inputs):
    check(trajectory(name, inputs)[0], under(read(name), f"{inputs}.params."))


@pytest.mark.parametrize("name", [case("velo"), case("velo_small")])
@pytest.mark.parametrize("key, decay", [("optax", 0.0), ("optax_wd", 0.01)])
def test_updates_are_those_of_the_reference_in_optax(name, key, decay):
    check(trajectory(name, "base", decay)[0], under(read(name), f"{key}.params."))


@pytest.mark.parametrize("name", ["celo", "celo_adam"])
def test_updates_with_a_penalty_are_those_of_the_reference(name):
    check(trajectory(name, "base", 0.01)[0], under(read(name), "wd.params."))


@pytest.mark.parametrize("name", [case("velo"), pytest.param("velo_small", marks=pytest.mark.slow)])
@pytest.mark.parametrize("key, decay", [("optax_accum", 0.0), ("optax_wd_accum", 0.01)])
def test_a_long_run_averages_as_the_reference_does(name, key, decay):
    found = trajectory(name, "base", decay, max_training_steps=30)[0]
    check(found, under(read(name), f"{key}.params."))


@jax.jit
def trend_features(trend, loss, updates):
    return loss_features(update_trend(trend, loss, updates), updates + 1)


@pytest.mark.parametrize(
    "name, inputs", [case(name, inputs) for name in FILES for inputs in ("base", "shapes")]
)
def test_internals_are_those_of_the_reference(name, inputs):
    found, states = trajectory(name, inputs)
    golden = under(read(name), f"{inputs}.internal.")
    weights = load_weights(PUBLISHED[FILES[name][0]], REFERENCE / FILES[name][1])
    num_steps, losses = int(read("inputs")[f"{inputs}.num_steps"]), read("inputs")
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        loss = jnp.asarray(losses[f"{inputs}.losses"][step])
        features = trend_features(before.trend, loss, before.updates)
        close(features, golden["loss_features"][step], atol=1e-5)
        shared = {
            "fraction_left": time_features(before.updates, num_steps),
            "loss_features": features,
        }
        for tensor, key in enumerate(sorted(found[0])):
            row = dict(shared)
            if name.startswith("velo"):
                moments = before.moments[key]
                param = jnp.asarray(found[step][key])[None]
                row |= tensor_features(param, moments.momentum, moments.mean_square)
            row = jnp.concatenate([row[part] for part in sorted(row)])
            close(row, golden["rnn_input"][step, tensor])
        sizes = step_sizes(weights, after.memory)
        if name.startswith("velo"):
            controls = dense(weights, "rnn_to_controls", after.memory.hidden)
            close(controls, golden["controls"][step])
        else:
            sizes = 0.1 * jnp.exp(sizes)
        close_to_all(sizes, golden["lr_mult"][step])
        close_to_all(after.memory.hidden, golden["lstm_hidden"][step])
        close_to_all(after.memory.cell, golden["lstm_cell"][step])


@pytest.mark.parametrize(
    "name, inputs", [case(name, inputs) for name in FILES for inputs in ("base", "shapes")]
)
def test_the_last_state_is_that_of_the_reference(name, inputs):
    state: LearnedState = trajectory(name, inputs)[1][-1]
    golden = under(read(name), f"{inputs}.final.")
    for field, key in (("means", "means"), ("smallest", "running_min"), ("decays", "decays")):
        wanted = golden[f"loss_buffer.{key}"]
        np.testing.assert_allclose(getattr(state.trend, field), wanted, rtol=1e-5)
    assert state.updates == golden["iteration"] == golden["loss_buffer.iteration"]
    for key, moments in state.moments.items():
        last = functools.partial(np.moveaxis, source=0, destination=-1)
        if name == "celo_adam":
            close_to(moments.momentum[..., None], golden[f"m.{key}"])
            close_to(moments.mean_square[..., None], golden[f"rms.{key}"])
            continue
        close_to(last(moments.momentum), golden[f"m.{key}"])
        close_to(last(moments.mean_square), golden[f"rms.{key}"])
        for field, part in (("row", "v_row"), ("column", "v_col"), ("whole", "v_diag")):
            wanted, have = golden[f"{part}.{key}"], getattr(moments.second, field)
            assert (have is None) == (0 in wanted.shape)
            if have is not None:  # an axis that was averaged has length 1 here, and is gone there
                close_to(last(have).reshape(wanted.shape), wanted)


def close(found: Any, wanted: Any, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


def close_to(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-30)


def close_to_all(found: Any, wanted: np.ndarray) -> None:
    """Where one row is for all tensors, every row of the reference is the same."""
    close(np.broadcast_to(found, wanted.shape), wanted)


@functools.cache
def digits_loss(name: str) -> Any:
    data = read("digits")
    images = jnp.asarray(data["x"].astype(np.float32) / np.float32(16))
    labels = jnp.asarray(data["y"])
    if name == "adam_1e-3":
        tx = optax.with_extra_args_support(optax.adam(1e-3))
    else:
        tx = MAKERS[name](200, REFERENCE / FILES[name][1])

    def loss_of(params, rows):
        hidden = jax.nn.relu(images[rows] @ params["l1"]["w"] + params["l1"]["b"][None])
        logits = hidden @ params["l2"]["w"] + params["l2"]["b"][None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return losses.mean()

    def step(carry, rows):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, rows)
        with jax.numpy_dtype_promotion("standard"):  # Adam of optax
            updates, state = tx.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), loss

    start = under(data, "params0.")
    params = {
        layer: {name: jnp.asarray(start[f"{layer}.{name}"]) for name in "wb"}
        for layer in ("l1", "l2")
    }
    (params, _), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, data["batch_idx"]))(
        (params, tx.init(params))
    )
    return losses, loss_of(params, jnp.arange(len(labels)))


@pytest.mark.slow
@pytest.mark.parametrize("name, atol", [("celo", 1e-4), ("celo_adam", 1e-4), ("adam_1e-3", 5e-4)])
def test_digits_are_learned_along_the_curve_of_the_reference(name, atol):
    losses, full = digits_loss(name)
    golden = read("digits_golden")
    close(losses, golden[f"{name}.loss"], atol=atol)
    if name != "adam_1e-3":
        close(full, golden[f"{name}.final_full_loss"], atol=1e-5)
