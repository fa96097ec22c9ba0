"""The demo's network: shapes, strides, BatchNorm, bytes as input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.demo._model import ResNet, ResNetBlock

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (4, 8, 8, 1))


def small(**changes) -> ResNet:
    return ResNet(**{"num_classes": 3, "block_sizes": (1, 1), "widths": (4, 8), **changes})


@pytest.fixture(scope="module")
def variables() -> dict:
    return jax.jit(lambda: small().init(KEY, IMAGES, train=False))()


def test_gives_a_logit_for_each_class(variables: dict) -> None:
    assert small().apply(variables, IMAGES, train=False).shape == (4, 3)


@pytest.mark.parametrize("stride, size", [(1, 8), (2, 4)])
def test_a_block_halves_the_image_by_its_stride(stride: int, size: int) -> None:
    block = ResNetBlock(6, stride)
    shape = jax.eval_shape(
        lambda: block.init_with_output(KEY, jnp.ones((2, 8, 8, 4)), train=False)[0]
    )
    assert shape.shape == (2, size, size, 6)


@pytest.mark.parametrize(
    "blocks, widths, stem_stride", [((2, 1), (4, 8), 1), ((1, 1, 1), (4, 4, 8), 2)]
)
def test_stages_have_the_blocks_and_widths_that_were_asked_for(blocks, widths, stem_stride) -> None:
    model = small(block_sizes=blocks, widths=widths, stem_stride=stem_stride)
    params = jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))["params"]
    assert sum(name.startswith("ResNetBlock") for name in params) == sum(blocks)
    assert params["Dense_0"]["kernel"].shape == (widths[-1], 3)


def test_stages_and_widths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        jax.eval_shape(lambda: small(widths=(4,)).init(KEY, IMAGES, train=False))


def test_training_updates_batch_statistics_and_evaluation_does_not(variables: dict) -> None:
    model, before = small(), variables["batch_stats"]
    train = jax.jit(lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"])[1])(
        variables
    )
    evaluate = jax.jit(lambda v: model.apply(v, IMAGES, train=False, mutable=["batch_stats"])[1])(
        variables
    )
    differs = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, train["batch_stats"])
    assert all(jax.tree.leaves(differs))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, evaluate.get("batch_stats", before)))


def test_evaluation_treats_each_image_alone(variables: dict) -> None:
    model = small()
    whole = model.apply(variables, IMAGES, train=False)
    one = model.apply(variables, IMAGES[:1], train=False)
    np.testing.assert_allclose(whole[:1], one, rtol=1e-5, atol=1e-5)


def test_bytes_are_scaled_by_the_model(variables: dict) -> None:
    model, pixels = small(), (IMAGES * 255).astype(jnp.uint8)
    logits = model.apply(variables, pixels, train=False)
    expected = model.apply(variables, pixels.astype(jnp.float32) / 255, train=False)
    np.testing.assert_array_equal(logits, expected)
