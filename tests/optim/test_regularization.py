"""Tests of `boltax.optim._regularization`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.errors import OptimizerError
from boltax.optim._regularization import describe_mask, l2_penalty, mask_function

PARAMS = {
    "Dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    "Attention": {"query": {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((2, 3))}},
    "BatchNorm_0": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    "Embed": {"embedding": jnp.ones((5, 2))},
    "temperature": jnp.ones(()),
}


def chosen(spec: Any) -> list[str]:
    mask = mask_function(spec)
    assert mask is not None
    leaves = jax.tree_util.tree_leaves_with_path(mask(PARAMS))
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, keep in leaves if keep]


def test_kernels_are_neither_biases_nor_norms() -> None:
    assert chosen("kernels") == ["Attention/query/kernel", "Dense_0/kernel", "Embed/embedding"]


def test_expression_is_searched_in_paths() -> None:
    assert chosen("^Dense.*/kernel$") == ["Dense_0/kernel"]
    assert chosen("Norm|bias") == [
        "Attention/query/bias",
        "BatchNorm_0/bias",
        "BatchNorm_0/scale",
        "Dense_0/bias",
    ]


def test_function_of_the_user_is_the_mask() -> None:
    assert chosen(lambda params: jax.tree.map(lambda leaf: leaf.ndim == 0, params)) == [
        "temperature"
    ]


def test_all_is_no_mask() -> None:
    assert mask_function("all") is None


def test_expression_that_matches_nothing_lists_the_paths() -> None:
    mask = mask_function("kernle")
    assert mask is not None
    with pytest.raises(OptimizerError, match=r"matches no parameter.*Attention/query/bias"):
        mask(PARAMS)


@pytest.mark.parametrize("spec", ["(", 3, {"Dense_0": True}])
def test_other_masks_are_errors(spec: Any) -> None:
    with pytest.raises(OptimizerError, match=r'expected "all", "kernels".*Write for instance'):
        mask_function(spec)


def test_describe_is_short() -> None:
    assert [describe_mask(spec) for spec in ("all", "kernels", "k$", chosen)] == [
        "all parameters",
        "kernels",
        "/k$/",
        "what chosen chooses",
    ]


def test_penalty_is_half_the_squared_norm() -> None:
    params = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([2.0], jnp.bfloat16)}
    assert l2_penalty(params, 0.1) == pytest.approx(0.5 * 0.1 * 29.0)
    assert l2_penalty(params, 0.1).dtype == jnp.float32


def test_gradient_of_the_penalty_is_proportional_to_the_parameters() -> None:
    params = {"a": jnp.asarray([3.0, -4.0]), "b": jnp.asarray([2.0], jnp.bfloat16)}
    grads = jax.grad(l2_penalty)(params, jnp.asarray(0.5))
    np.testing.assert_allclose(grads["a"], [1.5, -2.0])
    assert grads["b"].dtype == jnp.bfloat16
    assert float(grads["b"][0]) == 1.0


def test_penalty_leaves_out_whole_numbers() -> None:
    assert l2_penalty({"count": jnp.asarray(7), "key": jnp.asarray([1], jnp.uint32)}, 1.0) == 0.0
    assert l2_penalty({}, 1.0) == 0.0
