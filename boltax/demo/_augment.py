"""Random changes of training images, each image in its own way. Traced and pure: takes keys."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from boltax.data.augment import crop, flip
from boltax.errors import unknown_name

AUGMENTATIONS = ("clothes", "handwriting", "photographs")


def augment(augmentation: str, key: jax.Array, images: jax.Array) -> jax.Array:
    """Random changes that keep an image's class.

    Args:
        augmentation: ``"handwriting"``, which may be turned a little but not mirrored;
            ``"clothes"``, which may be mirrored; or ``"photographs"``, which may be moved further.
        key: random key.
        images: ``[batch, height, width, channels]``; floating for handwriting.

    Returns:
        The changed images, same shape and dtype.

    Raises:
        UnknownNameError: for an augmentation that does not exist.
    """
    first, second = jax.random.split(key)
    match augmentation:
        case "handwriting":
            return random_affine(first, images, degrees=10.0, scale=0.1, pixels=1.0)
        case "clothes":
            return flip(first, crop(second, images, padding=2, mode="constant"))
        case "photographs":
            return flip(first, crop(second, images, padding=4, mode="reflect"))
        case _:
            raise unknown_name("augmentation", augmentation, AUGMENTATIONS)


def random_affine(
    key: jax.Array, images: jax.Array, degrees: float, scale: float, pixels: float
) -> jax.Array:
    """Turns, scales and moves each image by small random amounts, with linear interpolation.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``, floating.
        degrees: the largest turn, either way.
        scale: the largest relative change of size, either way.
        pixels: the largest shift in both directions; fractions are meant.

    Returns:
        The changed images, same shape and dtype; zeros come in at the edges.
    """
    sizes = jnp.asarray(images.shape[1:3], images.dtype)
    centre = (sizes - 1) / 2
    grid = jnp.stack(
        jnp.meshgrid(*(jnp.arange(n, dtype=images.dtype) for n in images.shape[1:3]), indexing="ij")
    )
    offsets = grid - centre[:, None, None]
    limits = jnp.asarray((jnp.deg2rad(degrees), scale, pixels, pixels), images.dtype)
    amounts = jax.random.uniform(key, (images.shape[0], 4), images.dtype, -1.0, 1.0) * limits[None]

    def warp(image: jax.Array, amount: jax.Array) -> jax.Array:
        cos, sin = jnp.cos(amount[0]), jnp.sin(amount[0])
        turn = jnp.stack((jnp.stack((cos, -sin)), jnp.stack((sin, cos)))) / (1 + amount[1])
        source = jnp.einsum("ij,jhw->ihw", turn, offsets) + (centre + amount[2:])[:, None, None]
        channel = lambda plane: map_coordinates(plane, list(source), order=1, mode="constant")  # noqa: E731
        return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(warp)(images, amounts)
