"""Properties of the learned optimizers, with weights that are made here."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from boltax import optim
from boltax.errors import OptimizerError, UnknownNameError
from learned_weights import MAKERS, NAMES, write_all

each_optimizer = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("weights"))


def start() -> dict[str, Any]:
    """Two tensors of one shape, which are computed together, and one of less precision."""
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "c": rng.normal(size=(3, 4))}
    dtypes = {"a": jnp.float32, "b": jnp.bfloat16, "c": jnp.float32}
    return {key: jnp.asarray(value, dtypes[key]) for key, value in params.items()}


def loss_of(params: Any) -> jax.Array:
    leaves = jax.tree.leaves(params)
    return sum((jnp.mean(jnp.square(x.astype(jnp.float32) - 0.25)) for x in leaves), jnp.zeros(()))


def one_step(tx: Any, carry: Any, more: Any = 0.0) -> Any:
    params, state = carry
    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, state = tx.update(grads, state, params, value=loss + more)
    return optax.apply_updates(params, updates), state


class Trained(NamedTuple):
    """An optimizer with its compiled step, which all tests of it share."""

    tx: Any
    step: Any
    traces: list[int]


@pytest.fixture(scope="module")
def trained(weights):
    @functools.cache
    def make(name: str) -> Trained:
        tx, traces = MAKERS[name](20, weights[name]), []

        @jax.jit
        def step(carry, more):
            traces.append(1)
            return one_step(tx, carry, more)

        return Trained(tx, lambda carry, more=0.0: step(carry, jnp.float32(more)), traces)

    return make


def steps(trained: Trained, number: int, params: Any) -> Any:
    carry = params, trained.tx.init(params)
    for _ in range(number):
        carry = trained.step(carry)
    return carry


def assert_equal(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def assert_close(left: Any, right: Any) -> None:
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        is_coarse = one.dtype == jnp.bfloat16
        tolerance = {"rtol": 1e-2} if is_coarse else {"rtol": 1e-4, "atol": 1e-6}
        np.testing.assert_allclose(np.float32(one), np.float32(other), **tolerance)


def types(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@each_optimizer
def test_trains_keeps_dtypes_and_compiles_once(name, trained):
    trained.cache_clear()  # JAX may have given up what other tests had traced
    before = start(), trained(name).tx.init(start())
    after = steps(trained(name), 8, start())
    assert loss_of(after[0]) < 0.8 * loss_of(before[0])
    assert types(after) == types(before)
    assert len(trained(name).traces) == 1


@each_optimizer
def test_state_comes_back_from_bytes_and_goes_on_bitwise(name, trained):
    step, carry = trained(name).step, steps(trained(name), 2, start())
    stored = serialization.msgpack_serialize(serialization.to_state_dict(jax.device_get(carry)))
    fresh = start(), trained(name).tx.init(start())
    restored = serialization.from_state_dict(fresh, serialization.msgpack_restore(stored))
    restored = jax.tree.map(jnp.asarray, restored)
    assert_equal(step(step(restored)), step(step(carry)))


@each_optimizer
def test_steps_in_a_scan_are_the_same_steps(name, trained):
    tx = trained(name).tx
    carry = start(), tx.init(start())
    scan = jax.jit(lambda c: jax.lax.scan(lambda c, _: (one_step(tx, c), None), c, length=4)[0])
    assert_close(scan(carry), steps(trained(name), 4, start()))


@each_optimizer
def test_a_member_of_a_population_takes_its_own_steps(name, trained):
    tx = trained(name).tx

    def scaled(scale: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, start())

    def train(scale: jax.Array) -> Any:
        carry = scaled(scale), tx.init(scaled(scale))
        return jax.lax.fori_loop(0, 3, lambda _, c: one_step(tx, c), carry)

    scales = jnp.asarray([0.5, 2.0])
    population = jax.jit(jax.vmap(train))(scales)
    for member, scale in enumerate(scales):
        single = steps(trained(name), 3, scaled(scale))
        assert_close(jax.tree.map(lambda leaf, i=member: leaf[i], population), single)


def test_tensors_of_one_shape_step_as_each_by_itself(trained):
    """They are computed together, and each has its own features and statistics."""
    tx = trained("velo").tx

    @jax.jit
    def updates_of(params: Any) -> Any:
        grads = jax.tree.map(lambda leaf: 0.1 * leaf + 0.01, params)
        return tx.update(grads, tx.init(params), params, value=jnp.ones(()))[0]

    one, other = start()["a"], 3.0 * start()["c"]
    found = updates_of({"a": one, "b": other})
    # With an axis of length 1 it has another shape than the first, and is computed alone.
    alone = updates_of({"a": one, "b": other[:, None]})
    np.testing.assert_allclose(alone["a"], found["a"], rtol=1e-4)
    np.testing.assert_allclose(alone["b"][:, 0], found["b"], rtol=1e-4)


def test_masked_and_empty_trees_are_left_alone(trained):
    alone = trained("celo_adam").tx
    tx = optax.masked(alone, {"a": True, "b": False})
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(4)}
    updates, _ = tx.update(params, tx.init(params), params, value=jnp.ones(()))
    np.testing.assert_array_equal(updates["b"], params["b"])
    assert not np.array_equal(updates["a"], params["a"])
    assert alone.update({}, alone.init({}), {}, value=jnp.ones(()))[0] == {}


@each_optimizer
def test_a_loss_that_is_not_finite_shows_in_the_parameters(name, trained):
    """So the loop's own look at what is not finite sees it."""
    carry = start(), trained(name).tx.init(start())
    for _ in range(3):  # it hides the trend of the first two losses
        carry = trained(name).step(carry, np.nan)
    assert all(np.isnan(np.float32(leaf)).all() for leaf in jax.tree.leaves(carry[0]))


@each_optimizer
@pytest.mark.parametrize("steps", [None, 0, -3, 2.5, True])
def test_an_unknown_number_of_steps_is_an_error(name, steps, weights):
    match = rf"Received total_steps={steps} .*steps_per_epoch"
    with pytest.raises(OptimizerError, match=match):
        MAKERS[name](steps, weights[name])
    if steps is None:
        with pytest.raises(OptimizerError, match=match):
            optim.build({"optimizer": name, "weights": weights[name]}, None)


@each_optimizer
def test_what_an_update_lacks_is_named(name, trained):
    tx, params = trained(name).tx, start()
    state = tx.init(params)
    with pytest.raises(OptimizerError, match=f"optimizer '{name}' with gradients alone.*loss=loss"):
        tx.update(params, state, params)
    with pytest.raises(OptimizerError, match=r"without parameters; .*value=loss"):
        tx.update(params, state, value=jnp.ones(()))
    with pytest.raises(OptimizerError, match=r"value of float32\[8\] .*loss.mean\(\)"):
        tx.update(params, state, params, value=jnp.ones(8))
    with pytest.raises(OptimizerError, match=r"params\['n'\] of int32\[3\]"):
        tx.init({"n": jnp.arange(3)})


def test_by_name_it_is_the_same_optimizer(trained, weights):
    built = optim.build({"optimizer": "celo_adam", "weights": weights["celo_adam"]}, 20)
    assert built.describe == "celo_adam"
    step = jax.jit(lambda carry: one_step(built.tx, carry))
    carry = start(), built.tx.init(start())
    assert_equal(step(step(carry)), steps(trained("celo_adam"), 2, start()))


@each_optimizer
def test_what_it_does_not_take_is_refused_with_what_to_write(name, weights):
    hparams = {"optimizer": name, "weights": weights[name]}
    for key, value in (("lr", 0.1), ("schedule", "cosine"), ("warmup", 10)):
        with pytest.raises(OptimizerError, match=f"{name}.*it has no learning rate"):
            optim.check_hparams({**hparams, key: value})
    with pytest.raises(OptimizerError, match=r"Write .*adamw.* or l2_regularization=0\.1"):
        optim.check_hparams({**hparams, "weight_decay": 0.1})
    with pytest.raises(UnknownNameError, match="Did you mean 'weights'"):
        optim.check_hparams({"optimizer": name, "wieghts": weights[name]})
    assert optim.build({**hparams, "l2_regularization": 0.1}, 20).l2_regularization == 0.1


def test_a_long_run_of_velo_steps_once_for_several_updates(weights):
    tx = optim.velo(12, weights["velo"], max_training_steps=4)
    params = start()
    update, state, moved = jax.jit(tx.update), tx.init(params), []
    for _ in range(6):
        updates, state = update(params, state, params, value=jnp.ones(()))
        moved.append(any(np.any(leaf != 0) for leaf in jax.tree.leaves(updates)))
    assert moved == [False, False, True] * 2
    assert state.inner.updates == 2
    with pytest.raises(OptimizerError, match="max_training_steps=0"):
        optim.velo(12, weights["velo"], max_training_steps=0)
