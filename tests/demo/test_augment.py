"""Augmentation: shapes and dtypes stay, each image goes its own way, the keys decide."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.demo._augment import AUGMENTATIONS, augment, random_affine
from boltax.errors import UnknownNameError

KEY = jax.random.key(0)
FUNCTIONS = {
    "affine": lambda key, images: random_affine(key, images, 10.0, 0.1, 1.0),
    **{name: functools.partial(augment, name) for name in AUGMENTATIONS},
}
EACH = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def dots(count: int = 32, size: int = 8) -> jax.Array:
    """Images that are black but for one pixel near the middle."""
    return jnp.zeros((count, size, size, 1)).at[:, 3, 4].set(1.0)


@EACH
def test_keeps_shape_and_dtype(function) -> None:
    images = jnp.ones((5, 6, 8, 3))
    changed = jax.jit(function)(KEY, images)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype


@EACH
def test_each_image_changes_in_its_own_way(function) -> None:
    changed = np.asarray(function(KEY, dots()))
    assert len({image.tobytes() for image in changed}) > 1


@EACH
def test_the_key_decides(function) -> None:
    same, other = jax.random.key(0), jax.random.key(1)
    assert np.array_equal(function(KEY, dots()), function(same, dots()))
    assert not np.array_equal(function(KEY, dots()), function(other, dots()))


def test_clothes_are_mirrored_and_moved_by_up_to_two_pixels() -> None:
    changed = np.asarray(augment("clothes", KEY, (dots(1000) * 255).astype(jnp.uint8)))
    places = {tuple(np.argwhere(image)[0][:2].tolist()) for image in changed}
    assert set(np.unique(changed)) == {0, 255}
    assert places == {(row, column) for row in range(1, 6) for column in range(1, 7)}


def test_photographs_are_mirrored_and_moved_by_up_to_four_pixels() -> None:
    image = jnp.arange(12.0).reshape(1, 1, 12, 1) + jnp.zeros((1000, 12, 1, 1))
    changed = np.asarray(augment("photographs", KEY, image))[:, 0, 4:8, 0]
    forwards = {(n, n + 1, n + 2, n + 3) for n in range(9)}
    assert {tuple(row) for row in changed.tolist()} == forwards | {row[::-1] for row in forwards}


def test_affine_by_nothing_changes_nothing() -> None:
    images = jax.random.uniform(KEY, (4, 8, 8, 2))
    np.testing.assert_allclose(random_affine(KEY, images, 0.0, 0.0, 0.0), images, atol=1e-6)


def test_affine_keeps_the_middle_in_place_without_a_shift() -> None:
    images = jnp.zeros((16, 9, 9, 1)).at[:, 4, 4].set(1.0)
    np.testing.assert_allclose(
        random_affine(KEY, images, 30.0, 0.2, 0.0)[:, 4, 4, 0], 1.0, atol=1e-6
    )


def test_affine_shifts_by_at_most_the_limit() -> None:
    changed = np.asarray(random_affine(KEY, dots(200), 0.0, 0.0, 1.0))[..., 0]
    rows = (changed.sum(2) * np.arange(8)).sum(1) / changed.sum((1, 2))  # centre of mass
    assert np.abs(rows - 3).max() <= 1.0 + 1e-5
    assert np.abs(rows - 3).max() > 0.8


def test_affine_stretches_and_shrinks() -> None:
    square = jnp.zeros((64, 16, 16, 1)).at[:, 4:12, 4:12].set(1.0)
    areas = np.asarray(random_affine(KEY, square, 0.0, 0.2, 0.0)).sum((1, 2, 3)) / 64
    assert areas.min() < 0.8
    assert areas.max() > 1.25


def test_a_misspelt_augmentation_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'clothes'"):
        augment("cloths", KEY, dots())
