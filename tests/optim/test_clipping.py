"""Each kind of `gradient_clip` is its formula, for the gradients of all parameters as they come."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.optim import build

PARAMS = {
    "kernel": np.array([[0.3, -2.0], [0.4, 0.0], [1.2, 1.0]], np.float32),
    "bias": np.array([3.0, -4.0], np.float32),
}
GRADS = {
    "kernel": np.array([[3.0, -0.1], [0.0, 0.2], [-4.0, 0.1]], np.float32),
    "bias": np.array([0.5, -12.0], np.float32),
}


def clipped(clip: Any) -> dict[str, np.ndarray]:
    """The gradients as plain gradient descent with a learning rate of 1 gets them."""
    hparams = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant", "gradient_clip": clip}
    tx = build(hparams, None).tx
    params = jax.tree.map(jnp.asarray, PARAMS)
    updates, _ = tx.update(jax.tree.map(jnp.asarray, GRADS), tx.init(params), params)
    return {name: -np.asarray(update) for name, update in updates.items()}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("limit", [0.5, 5.0, 100.0])
def test_the_norm_is_that_of_all_gradients_together(limit: float) -> None:
    norm = np.sqrt(sum((grad**2).sum() for grad in GRADS.values()))
    factor = min(1.0, limit / norm)
    assert_close(clipped(limit), {name: factor * grad for name, grad in GRADS.items()})
    assert_close(clipped({"norm": limit}), clipped(limit))


def test_values_are_clipped_one_by_one() -> None:
    expected = {name: np.clip(grad, -0.2, 0.2) for name, grad in GRADS.items()}
    assert_close(clipped({"value": 0.2}), expected)


def test_adaptive_clipping_is_by_the_norms_of_units() -> None:
    """Brock et al. 2021, arXiv:2102.06171, equation 3: a unit is a column of the kernel.

    G_i <- lambda * max(|W_i|, 1e-3) / |G_i| * G_i  where  |G_i| / max(|W_i|, 1e-3) > lambda
    """
    limit, expected = 0.1, {}
    for name, grad in GRADS.items():
        # A vector is one unit.
        axis = 0 if grad.ndim > 1 else None
        of_grad = np.linalg.norm(grad, axis=axis, keepdims=True)
        of_param = np.maximum(np.linalg.norm(PARAMS[name], axis=axis, keepdims=True), 1e-3)
        factor = np.where(of_grad > limit * of_param, limit * of_param / of_grad, 1.0)
        expected[name] = factor * grad
    assert_close(clipped({"adaptive": limit}), expected)


def test_nothing_is_clipped_where_none_is_asked_for() -> None:
    assert_close(clipped(None), GRADS)
