"""Random changes of training images on the device: pure functions of a key and a batch.

Call them in `loss_function`, in training only, with this step's keys. They are compiled with the
step, cost the host nothing, and a resumed run draws what the uninterrupted one does:

    >>> import boltax as bx, flax.linen as nn, jax, jax.numpy as jnp, optax
    >>> from boltax.data import augment
    >>> class Classifier(bx.TrainerModule):
    ...     def loss_function(self, model, batch, train):
    ...         images, labels = batch[0], jax.nn.one_hot(batch[1], 10)
    ...         if train:
    ...             images = augment.crop(model.rng("augment"), images, padding=4)
    ...             images = augment.flip(model.rng("augment"), images)
    ...             images, labels = augment.mixup(model.rng("augment"), images, labels)
    ...         return optax.softmax_cross_entropy(model(images), labels), {}

Outside of a trainer, too:

    >>> images = jnp.zeros((32, 28, 28, 1), jnp.uint8)
    >>> augment.flip(jax.random.key(0), images).shape
    (32, 28, 28, 1)

Images are ``[batch, height, width, channels]`` and keep their dtype. Each image is changed by a
draw of its own. All of this works under `jax.jit`, `jax.vmap` and `jax.lax.scan`; probabilities and
alphas may be traced, such as hyperparameters of a sweep.

Nothing here knows of training: what is changed, and in which order, is said by the caller.
"""

import math
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from boltax._base._trees import describe_leaf
from boltax.errors import ConfigurationError, DataError, unknown_name

__all__ = ["crop", "cutmix", "cutout", "flip", "mixup"]

Size: TypeAlias = int | tuple[int, int]
"""Pixels in both directions, or ``(rows, columns)``."""

AXES = {"horizontal": 2, "vertical": 1}
MODES = ("constant", "edge", "reflect")


def crop(
    key: jax.Array,
    images: ArrayLike,
    padding: Size = 4,
    mode: str = "reflect",
    *,
    size: Size | None = None,
) -> jax.Array:
    """Cuts a window out of each padded image, at a random place.

    With padding and without a size, this moves each image by up to `padding` pixels, the usual
    change for CIFAR. Without padding and with a size, it cuts out patches.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``, any dtype.
        padding: pixels added on each side; or ``(rows, columns)``.
        mode: what they are: ``"reflect"`` the image mirrored at its edge, ``"constant"`` zeros,
            ``"edge"`` the pixels of the edge.
        size: of the windows; or ``(rows, columns)``. By default that of the images.

    Returns:
        The windows, ``[batch, *size, channels]``, same dtype.

    Raises:
        ConfigurationError: when the window is larger than the padded image.
        DataError: when the images are no batch of images.
        UnknownNameError: for a mode that does not exist.

    Example:
        >>> images = jnp.ones((8, 32, 32, 3))
        >>> crop(jax.random.key(0), images, padding=4).shape
        (8, 32, 32, 3)
        >>> crop(jax.random.key(0), images, padding=0, size=(24, 16)).shape
        (8, 24, 16, 3)
    """
    images = _checked_images(images)
    if mode not in MODES:
        raise unknown_name("mode of crop", mode, MODES)
    rows, columns = _pair("padding", padding, least=0)
    window = images.shape[1:3] if size is None else _pair("size", size, least=1)
    padded = jnp.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode)
    _check_fits("size", window, padded.shape[1:3], "the image with its padding")
    room = [[whole - part + 1 for whole, part in zip(padded.shape[1:3], window, strict=True)]]
    corners = jax.random.randint(key, (images.shape[0], 2), 0, jnp.asarray(room))

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (*window, image.shape[-1]))

    return jax.vmap(cut)(padded, corners)


def flip(
    key: jax.Array,
    images: ArrayLike,
    axis: str = "horizontal",
    probability: float | jax.Array = 0.5,
) -> jax.Array:
    """Mirrors some of the images.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``, any dtype.
        axis: ``"horizontal"`` exchanges left and right, ``"vertical"`` top and bottom.
        probability: that of each image to be mirrored.

    Returns:
        The images, same shape and dtype.

    Raises:
        ConfigurationError: for a probability that is not between 0 and 1.
        DataError: when the images are no batch of images.
        UnknownNameError: for an axis that does not exist.

    Example:
        >>> images = jnp.arange(3).reshape(1, 1, 3, 1)
        >>> flip(jax.random.key(0), images, probability=1.0).ravel().tolist()
        [2, 1, 0]
    """
    images = _checked_images(images)
    if axis not in AXES:
        raise unknown_name("axis of flip", axis, AXES)
    chance = _as_float(probability)
    if chance is None or (isinstance(chance, float) and not 0 <= chance <= 1):
        raise ConfigurationError(
            f"Received probability={probability!r}; expected a number from 0 to 1, the share of "
            "images that are mirrored. Write probability=0.5."
        )
    is_flipped = jax.random.bernoulli(key, chance, (images.shape[0], 1, 1, 1))
    return jnp.where(is_flipped, jnp.flip(images, AXES[axis]), images)


def cutout(key: jax.Array, images: ArrayLike, size: Size, fill: ArrayLike = 0) -> jax.Array:
    """Covers a rectangle of each image, around a random pixel.

    Near an edge a part of the rectangle lies outside of the image, as in the paper.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``, any dtype.
        size: side of the square; or ``(rows, columns)``.
        fill: what covers it: one value, or one for each channel ``[channels]``. The mean of the
            training images is 0 where they are normalized.

    Returns:
        The images, same shape and dtype.

    Raises:
        ConfigurationError: when the rectangle is larger than the image, or the images' dtype cannot
            hold the fill.
        DataError: when the images are no batch of images.

    Example:
        >>> images = jnp.ones((1, 4, 4, 1))
        >>> int(cutout(jax.random.key(0), images, size=1).sum())
        15

    References:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
        2017, arXiv:1708.04552.
    """
    images = _checked_images(images)
    lengths = _pair("size", size, least=1)
    _check_fits("size", lengths, images.shape[1:3], "the image")
    is_covered = _rectangles(key, images, jnp.asarray([lengths]))
    return jnp.where(is_covered, _checked_fill(fill, images), images)


def mixup(
    key: jax.Array,
    images: ArrayLike,
    labels: ArrayLike,
    alpha: float | jax.Array = 0.2,
    *,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Blends each example with another one of the batch, the labels in the same proportion.

    The weight of each example is drawn from Beta(alpha, alpha); its partner comes from a random
    permutation of the batch, and so now and then is the example itself.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``; where they are integers, what comes out is
            rounded.
        labels: one-hot or soft, floating ``[batch, classes]``; or classes, integers ``[batch]``.
        alpha: small values leave most examples nearly as they are, 1 makes every weight as likely.
        num_classes: the number of classes; needed for integer labels.

    Returns:
        The images, same shape and dtype, and the labels ``[batch, classes]``: floating, for
        `optax.softmax_cross_entropy`.

    Raises:
        ConfigurationError: when alpha is not positive, or `num_classes` is missing or contradicts
            the labels.
        DataError: when images or labels have another shape.

    Example:
        >>> images, labels = jnp.zeros((4, 8, 8, 3)), jnp.asarray([0, 1, 2, 1])
        >>> images, labels = mixup(jax.random.key(0), images, labels, num_classes=3)
        >>> images.shape, labels.shape
        ((4, 8, 8, 3), (4, 3))

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412.
    """
    images = _checked_images(images)
    soft = _soft_labels(labels, num_classes, images.shape[0])
    for_weights, for_partners = jax.random.split(key)
    weights = _weights(for_weights, alpha, images.shape[0])
    partners = jax.random.permutation(for_partners, images.shape[0])
    return _blend(weights, images, images[partners]), _blend(weights, soft, soft[partners])


def cutmix(
    key: jax.Array,
    images: ArrayLike,
    labels: ArrayLike,
    alpha: float | jax.Array = 1.0,
    *,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Covers a rectangle of each image with that of another one, the labels in the same proportion.

    The share of the image that is to be kept is drawn from Beta(alpha, alpha). The rectangle has
    the proportions of the image and lies around a random pixel; labels count what of it lies
    inside. Partners are as for `mixup`.

    Args:
        key: random key.
        images: ``[batch, height, width, channels]``, any dtype.
        labels: one-hot or soft, floating ``[batch, classes]``; or classes, integers ``[batch]``.
        alpha: 1 makes every share as likely.
        num_classes: the number of classes; needed for integer labels.

    Returns:
        The images, same shape and dtype, and the labels ``[batch, classes]``: floating, for
        `optax.softmax_cross_entropy`.

    Raises:
        ConfigurationError: when alpha is not positive, or `num_classes` is missing or contradicts
            the labels.
        DataError: when images or labels have another shape.

    Example:
        >>> images, labels = jnp.zeros((4, 8, 8, 3)), jnp.asarray([0, 1, 2, 1])
        >>> images, labels = cutmix(jax.random.key(0), images, labels, num_classes=3)
        >>> images.shape, labels.shape
        ((4, 8, 8, 3), (4, 3))

    References:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", ICCV 2019, arXiv:1905.04899.
    """
    images = _checked_images(images)
    soft = _soft_labels(labels, num_classes, images.shape[0])
    for_shares, for_places, for_partners = jax.random.split(key, 3)
    share = jnp.sqrt(1 - _weights(for_shares, alpha, images.shape[0]))[:, None]
    lengths = (share * jnp.asarray([images.shape[1:3]], share.dtype)).astype(jnp.int32)
    is_covered = _rectangles(for_places, images, lengths)
    partners = jax.random.permutation(for_partners, images.shape[0])
    kept = 1 - is_covered.astype(share.dtype).mean((1, 2, 3))
    return jnp.where(is_covered, images[partners], images), _blend(kept, soft, soft[partners])


def _rectangles(key: jax.Array, images: jax.Array, lengths: jax.Array) -> jax.Array:
    """Where a rectangle around a random pixel is, ``[batch, height, width, 1]``.

    `lengths` is ``[batch, 2]`` or ``[1, 2]``: rows and columns.
    """
    batch, height, width, _ = images.shape
    centres = jax.random.randint(key, (batch, 2), 0, jnp.asarray([[height, width]]))
    first = centres - lengths // 2
    last = first + lengths
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (rows >= first[:, :1]) & (rows < last[:, :1])
    in_columns = (columns >= first[:, 1:]) & (columns < last[:, 1:])
    return in_rows[:, :, None, None] & in_columns[:, None, :, None]


def _weights(key: jax.Array, alpha: float | jax.Array, batch: int) -> jax.Array:
    """Draws ``[batch]`` from Beta(alpha, alpha).

    Both parameters are equal, so a draw of Student's t with 2 alpha degrees of freedom (Bailey,
    "Polar generation of random variates with the t-distribution", 1994) gives one by a change of
    variable. `jax.random.beta` would add seconds to the compilation of a step.
    """
    both = _as_float(alpha)
    if both is None or (isinstance(both, float) and not 0 < both < math.inf):
        raise ConfigurationError(
            f"Received alpha={alpha!r}; expected a positive number, both parameters of the Beta "
            "distribution. Write alpha=0.2, or leave the call out to mix nothing."
        )
    radius, turn = jax.random.uniform(key, (2, batch), jnp.float32)
    cosine = jnp.cos(2 * jnp.pi * turn)
    growth = jnp.expm1(-jnp.log(radius) / jnp.asarray(both, jnp.float32))
    square = growth * cosine**2  # t * t / (2 alpha): may be infinite, which is right
    return 0.5 + 0.5 * jnp.sign(cosine) * jax.lax.rsqrt(1 + 1 / square)


def _blend(weights: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Gives `first` its weight and `second` the rest, example by example; the dtype stays."""
    dtype = first.dtype
    is_floating = jnp.issubdtype(dtype, jnp.floating)
    wide = dtype if is_floating and dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
    weights = weights.reshape(-1, *(1 for _ in first.shape[1:])).astype(wide)
    low, high = second.astype(wide), first.astype(wide)
    blended = low + weights * (high - low)  # exact where both are equal
    return (blended if is_floating else jnp.round(blended)).astype(dtype)


def _soft_labels(labels: ArrayLike, num_classes: int | None, batch: int) -> jax.Array:
    """The labels as ``[batch, classes]``, floating."""
    shown, shape = describe_leaf(labels), getattr(labels, "shape", None)
    dtype: Any = getattr(labels, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, jnp.floating):
        if shape != (batch,) or not jnp.issubdtype(dtype, jnp.integer):
            raise DataError(
                f"Received labels {shown} for {batch} images; expected classes, integers "
                f"[{batch}], or floating labels [{batch}, classes]. Write "
                "labels.astype(jnp.float32) where they are one-hot."
            )
        if num_classes is None:
            raise ConfigurationError(
                f"Received integer labels {shown} without num_classes; expected the number of "
                "classes, since classes as numbers cannot be mixed. Write num_classes=10, or pass "
                "jax.nn.one_hot(labels, 10)."
            )
        return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if shape is None or len(shape) != 2 or shape[0] != batch:
        raise DataError(
            f"Received labels {shown} for {batch} images; expected floating labels [{batch}, "
            f"classes], or integers [{batch}]. Write labels[:, None] for one target for each image."
        )
    if num_classes not in (None, shape[1]):
        raise ConfigurationError(
            f"Received num_classes={num_classes} with labels {shown}; expected the labels' own "
            f"number, {shape[1]}. Leave num_classes out: it is for integer labels."
        )
    return jnp.asarray(labels)


def _checked_images(images: ArrayLike) -> jax.Array:
    if getattr(images, "ndim", None) != 4:
        raise DataError(
            f"Received images {describe_leaf(images)}; expected an array [batch, height, width, "
            "channels]. Write images[None] for a single image, images[..., None] for gray images "
            "without channels."
        )
    return jnp.asarray(images)


def _checked_fill(fill: ArrayLike, images: jax.Array) -> jax.Array:
    """The fill as ``[1, 1, 1, channels]`` or ``[1, 1, 1, 1]``, in the images' dtype."""
    dtype, channels = images.dtype, images.shape[-1]
    shape = np.shape(fill)
    if shape not in ((), (channels,)):
        raise ConfigurationError(
            f"Received fill of shape {list(shape)} for images {describe_leaf(images)}; expected "
            f"one value, or one for each of the {channels} channels. Write fill=0."
        )
    if not isinstance(fill, jax.Array) and not jnp.issubdtype(dtype, jnp.floating):
        values = np.asarray(fill)
        with np.errstate(invalid="ignore"):
            is_held = bool((values.astype(dtype) == values).all())
        if not is_held:
            raise ConfigurationError(
                f"Received fill={fill!r} for images {describe_leaf(images)}; expected a value that "
                f"{dtype} can hold. Write fill=0, or make the images floating first."
            )
    return jnp.asarray(fill).astype(dtype).reshape(1, 1, 1, -1)


def _pair(name: str, value: object, least: int) -> tuple[int, int]:
    """A size as ``(rows, columns)``."""
    parts = cast("tuple[Any, ...]", value if isinstance(value, tuple | list) else (value, value))
    is_whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in parts)
    if len(parts) != 2 or not is_whole or min(parts) < least:
        raise ConfigurationError(
            f"Received {name}={value!r}; expected a whole number of at least {least}, or two of "
            f"them for rows and columns. Write {name}=8, or {name}=(8, 4)."
        )
    return int(parts[0]), int(parts[1])


def _check_fits(name: str, size: tuple[int, ...], whole: tuple[int, ...], what: str) -> None:
    if any(part > most for part, most in zip(size, whole, strict=True)):
        raise ConfigurationError(
            f"Received {name}={size}, larger than {what}, {whole[0]} x {whole[1]}; expected at "
            f"most that. Write {name}={whole}."
        )


def _as_float(value: object) -> float | jax.Array | None:
    """A number as float; an array of jax, which may be traced, unseen; None for anything else."""
    if isinstance(value, jax.Array):
        return value
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return float(cast("float", value)) if is_number else None
