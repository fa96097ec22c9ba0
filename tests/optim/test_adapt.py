"""Tests of `boltax.optim._adapt`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from boltax.errors import OptimizerError
from boltax.optim._adapt import in_common_dtype, requiring, robust

PARAMS = {"w": jnp.asarray([1.0, -2.0]), "v": jnp.asarray([3.0], jnp.bfloat16)}


def loss_of(params: Any) -> jax.Array:
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(params)]
    return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), start=jnp.zeros(()))


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(1e-3),
        optax.clip(1.0),
        optax.lbfgs(),
        optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
        optax.MultiSteps(optax.adam(1e-3), every_k_schedule=2),
        optax.contrib.sophia(1e-3),
    ],
)
def test_any_transformation_takes_any_extra_argument_and_is_traced_once(tx: Any) -> None:
    params, traces = {"w": jnp.asarray([1.0, -2.0])}, []
    adapted = robust(tx)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        loss, grads = jax.value_and_grad(loss_of)(params)
        extra = {"value": loss, "loss": loss, "grad": grads, "value_fn": loss_of, "mine": 1}
        updates, state = adapted.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    state = adapted.init(params)
    for _ in range(3):
        params, state = step(params, state)
    assert len(traces) == 1


def test_extra_arguments_of_a_value_function_reach_it() -> None:
    def loss_of_batch(params: Any, batch: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(params["w"] - batch))

    params, batch = {"w": jnp.asarray([1.0, -2.0])}, jnp.asarray([4.0, 4.0])
    tx = robust(optax.lbfgs())
    loss, grads = jax.value_and_grad(loss_of_batch)(params, batch)
    extra = {"value": loss, "grad": grads, "value_fn": loss_of_batch, "batch": batch, "loss": loss}
    updates, _ = tx.update(grads, tx.init(params), params, **extra)
    assert loss_of_batch(optax.apply_updates(params, updates), batch) < loss


def test_common_dtype_computes_in_float32_and_keeps_dtypes() -> None:
    seen: list[Any] = []

    def value_fn(params: Any) -> jax.Array:
        seen.append(jax.tree.map(lambda leaf: leaf.dtype, params))
        return loss_of(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append([leaf.dtype for leaf in jax.tree.leaves((updates, params, extra["grad"]))])
        extra["value_fn"](params)
        return updates, state

    tx = in_common_dtype(optax.GradientTransformationExtraArgs(lambda params: params, update))
    state = tx.init(PARAMS)
    updates, _ = tx.update(PARAMS, state, PARAMS, grad=PARAMS, value_fn=value_fn)
    own = {"w": jnp.float32, "v": jnp.bfloat16}
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [jnp.float32] * 2
    assert seen == [[jnp.float32] * 6, own]
    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == own


def test_common_dtype_leaves_whole_numbers_alone() -> None:
    tx = in_common_dtype(optax.with_extra_args_support(optax.identity()))
    updates, _ = tx.update({"n": jnp.asarray(3)}, tx.init({"n": jnp.asarray(3)}))
    assert updates["n"].dtype == jnp.int32


@pytest.mark.parametrize(
    ("needs", "given", "match"),
    [
        (("value",), {}, r"gradients alone; expected value too.*apply_gradients\(.*loss=loss\)"),
        (("value",), {"value": None}, "expected value too"),
        (
            ("value", "grad", "value_fn"),
            {"value": 1.0},
            "expected grad, value_fn too.*value_fn=lambda",
        ),
        (("obj_fn",), {"value": 1.0}, "expected obj_fn too"),
    ],
)
def test_missing_arguments_say_what_to_write(
    needs: tuple[str, ...], given: dict[str, Any], match: str
) -> None:
    tx = requiring(optax.with_extra_args_support(optax.identity()), "mine", needs)
    with pytest.raises(OptimizerError, match=match):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, **given)


def test_value_function_serves_as_objective() -> None:
    tx = requiring(optax.with_extra_args_support(optax.identity()), "mine", ("obj_fn",))
    assert tx.update(PARAMS, tx.init(PARAMS), PARAMS, value_fn=loss_of)[0] is PARAMS
