"""Augmentation: what each change may do to an image, how often, and that the key decides."""

import functools
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import boltax as bx
from boltax.data import augment
from boltax.errors import ConfigurationError, DataError, UnknownNameError
from boltax.testing import assert_resumes_exactly

KEY = jax.random.key(0)
IMAGE_CHANGES = {
    "crop": augment.crop,
    "flip": augment.flip,
    "cutout": functools.partial(augment.cutout, size=(2, 4), fill=(7, 8, 9)),
    "mixup": lambda key, images: augment.mixup(key, images, one_hot(images.shape[0]))[0],
    "cutmix": lambda key, images: augment.cutmix(key, images, one_hot(images.shape[0]))[0],
}
EACH = pytest.mark.parametrize("change", IMAGE_CHANGES.values(), ids=IMAGE_CHANGES)
MIXES = pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])


def photos(batch: int = 16, height: int = 8, width: int = 10, dtype=np.float32) -> jax.Array:
    """Images without two equal values in one image, as far as the dtype has them."""
    values = np.random.default_rng(0).permutation(batch * height * width * 3) % 251
    return jnp.asarray(values.reshape(batch, height, width, 3).astype(dtype))


def numbered(batch: int, size: int = 8) -> jax.Array:
    """Images of one value: each its own number."""
    return jnp.broadcast_to(jnp.arange(batch, dtype=jnp.float32)[:, None, None, None], (
        batch, size, size, 1,
    ))  # fmt: skip


def one_hot(batch: int) -> jax.Array:
    return jax.nn.one_hot(jnp.arange(batch), batch)


@EACH
def test_the_dtype_is_kept(change) -> None:
    images = [photos(4).astype(dtype) for dtype in ("uint8", "int32", "bfloat16", "float32")]
    changed = jax.jit(lambda images: [change(KEY, each) for each in images])(images)
    assert [each.dtype for each in changed] == [each.dtype for each in images]
    assert all(jnp.isfinite(each).all() for each in changed)


@EACH
def test_the_key_decides(change) -> None:
    images, change = photos(), jax.jit(change)
    again, other = change(jax.random.key(0), images), change(jax.random.key(1), images)
    assert np.array_equal(change(KEY, images), again)
    assert not np.array_equal(again, other)


@EACH
def test_jit_scan_and_vmap_give_the_same(change) -> None:
    images, keys = photos(dtype=np.uint8), jax.random.split(KEY, 3)

    @jax.jit
    def scanned_and_mapped(keys, images):
        scanned = jax.lax.scan(lambda carry, key: (carry, change(key, images)), 0, keys)[1]
        return scanned, jax.vmap(change, in_axes=(0, None))(keys, images)

    scanned, mapped = scanned_and_mapped(keys, images)
    assert np.array_equal(scanned, mapped)
    assert np.array_equal(scanned[0], jax.jit(change)(keys[0], images))
    assert np.array_equal(scanned[1], change(keys[1], images))


@EACH
def test_equal_images_of_a_batch_change_in_ways_of_their_own(change) -> None:
    images = jnp.broadcast_to(photos(1), (16, 8, 10, 3))
    images = jnp.where(jnp.arange(16)[:, None, None, None] > 7, 0, images)
    changed = np.asarray(jax.jit(change)(KEY, images))
    assert len({image.tobytes() for image in changed[:8]}) > 1


@EACH
def test_numpy_arrays_are_taken(change) -> None:
    images = photos(dtype=np.uint8)
    assert np.array_equal(change(KEY, np.asarray(images)), change(KEY, images))


def is_mirrored(changed: jax.Array, images: jax.Array, axis: int) -> np.ndarray:
    """For each image whether it is mirrored; fails where it is neither that nor the same."""
    mirrored = np.asarray((changed == jnp.flip(images, axis)).all((1, 2, 3)))
    same = np.asarray((changed == images).all((1, 2, 3)))
    assert (mirrored ^ same).all()
    return mirrored


@pytest.mark.parametrize("axis,number", [("horizontal", 2), ("vertical", 1)])
def test_flip_mirrors_about_half_of_the_images_along_its_axis(axis, number) -> None:
    images = photos(1000, 3, 4)
    mirrored = is_mirrored(augment.flip(KEY, images, axis), images, number)
    assert 430 < mirrored.sum() < 570
    assert 180 < (mirrored[1:] & mirrored[:-1]).sum() < 320  # neighbours do not follow each other


@pytest.mark.parametrize("probability,least,most", [(0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)])
def test_flip_has_the_probability_that_it_is_given(probability, least, most) -> None:
    images = photos(1000, 3, 4)
    changed = augment.flip(KEY, images, probability=probability)
    assert least <= is_mirrored(changed, images, 2).sum() <= most


def test_a_probability_and_an_alpha_may_be_traced() -> None:
    images = photos()
    flip = jax.jit(lambda p: augment.flip(KEY, images, probability=p))
    mix = jax.jit(lambda alpha: augment.mixup(KEY, images, one_hot(16), alpha)[1])
    assert np.array_equal(flip(0.25), augment.flip(KEY, images, probability=0.25))
    np.testing.assert_allclose(mix(0.5), augment.mixup(KEY, images, one_hot(16), 0.5)[1], rtol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "constant", "edge"])
def test_crop_gives_windows_of_the_padded_image_every_one_of_them(mode) -> None:
    image = np.asarray(photos(1, 4, 5)[0])
    padded = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode)
    windows = {padded[r : r + 4, c : c + 5].tobytes() for r in range(3) for c in range(5)}
    changed = np.asarray(augment.crop(KEY, jnp.stack([image] * 400), (1, 2), mode))
    counts = Counter(each.tobytes() for each in changed)
    assert set(counts) == windows
    assert len(counts) == 15
    assert min(counts.values()) > 8


def test_crop_cuts_patches_of_a_size_out_of_the_image_itself() -> None:
    image = np.asarray(photos(1, 4, 5)[0])
    patches = np.asarray(augment.crop(KEY, jnp.stack([image] * 200), 0, size=(3, 2)))
    windows = {image[r : r + 3, c : c + 2].tobytes() for r in range(2) for c in range(4)}
    assert patches.shape == (200, 3, 2, 3)
    assert {patch.tobytes() for patch in patches} == windows


def test_crop_without_room_changes_nothing() -> None:
    assert np.array_equal(augment.crop(KEY, photos(), padding=0), photos())


def test_cutout_covers_a_rectangle_and_nothing_else() -> None:
    images = photos(300) + 1
    changed = np.asarray(augment.cutout(KEY, images, (3, 5), fill=-1))
    is_covered = changed == -1
    assert np.array_equal(changed[~is_covered], np.asarray(images)[~is_covered])
    for covered in is_covered:
        rows, columns = covered[..., 0].any(1), covered[..., 0].any(0)
        assert np.array_equal(
            covered, np.broadcast_to(np.outer(rows, columns)[..., None], (8, 10, 3))
        )
        assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
        assert np.diff(np.flatnonzero(columns)).max(initial=1) == 1
    rows, columns = is_covered[..., 0].any(2).sum(1), is_covered[..., 0].any(1).sum(1)
    assert set(rows) == {2, 3}  # less at an edge
    assert set(columns) == {3, 4, 5}


def test_cutout_is_centred_on_every_pixel_alike() -> None:
    changed = augment.cutout(KEY, jnp.ones((6000, 4, 5, 1)), 1)
    counts = np.asarray((changed == 0).sum((0, 3)))
    assert counts.sum() == 6000
    assert counts.min() > 220
    assert counts.max() < 380


def test_cutout_fills_each_channel_with_its_own_value() -> None:
    changed = augment.cutout(KEY, jnp.zeros((4, 5, 5, 3), jnp.uint8), 5, fill=(1, 2, 3))
    colours = {tuple(pixel.tolist()) for pixel in np.asarray(changed).reshape(-1, 3)}
    assert colours <= {(0, 0, 0), (1, 2, 3)}
    assert (1, 2, 3) in colours


def test_mixup_blends_labels_as_it_blends_images() -> None:
    images, labels = augment.mixup(KEY, numbered(64), one_hot(64), alpha=1.0)
    expected = labels @ jnp.arange(64.0)  # an image of the number i has the label i
    np.testing.assert_allclose(images, expected[:, None, None, None] * jnp.ones((64, 8, 8, 1)),
                               atol=1e-4)  # fmt: skip
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)


def test_mixup_mixes_at_most_two_examples_and_uses_each_once_as_a_partner() -> None:
    _, labels = augment.mixup(KEY, numbered(64), one_hot(64), alpha=1.0)
    assert ((labels > 0).sum(-1) <= 2).all()
    partners = [int(np.argmax(np.delete(row, i))) for i, row in enumerate(np.asarray(labels))]
    partners = [p + (p >= i) for i, p in enumerate(partners) if labels[i, i] < 1]
    assert len(set(partners)) == len(partners) > 55


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1, 8.0, 1000.0])
def test_the_weights_of_mixup_follow_the_beta_distribution(alpha) -> None:
    images = jnp.zeros((4000, 1, 1, 1)).at[::2].set(1.0)
    _, labels = augment.mixup(KEY, images, images[:, 0, 0], alpha)
    # The label of an example of 0 is 1 - weight if its partner is one of 1, and else 0. The ends,
    # where float32 is coarse, are left out.
    weights = np.asarray(labels[1::2, 0]).astype(np.float64)
    weights = weights[(weights > 0.001) & (weights < 0.999)]
    cdf = scipy.stats.beta(alpha, alpha).cdf
    inside = cdf(0.999) - cdf(0.001)
    assert len(weights) == pytest.approx(1000 * inside, rel=0.15)
    assert scipy.stats.kstest(weights, lambda x: (cdf(x) - cdf(0.001)) / inside).pvalue > 0.001


def test_mixup_of_bytes_rounds_to_the_nearest() -> None:
    images = photos(16, dtype=np.uint8)
    mixed, _ = augment.mixup(KEY, images, one_hot(16), alpha=1.0)
    exact, _ = augment.mixup(KEY, images.astype(jnp.float32), one_hot(16), alpha=1.0)
    assert np.array_equal(mixed, np.round(exact))


def test_mixup_leaves_an_example_that_meets_its_equal_as_it_is() -> None:
    images = jnp.full((8, 4, 4, 1), 0.1)
    mixed, labels = augment.mixup(KEY, images, jnp.ones(8, jnp.int32), num_classes=3)
    assert np.array_equal(mixed, images)
    assert np.array_equal(labels, jax.nn.one_hot(jnp.ones(8, jnp.int32), 3))


def test_cutmix_weighs_labels_by_the_pixels_that_are_left() -> None:
    images, labels = augment.cutmix(KEY, numbered(64), one_hot(64))
    for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
        shares = np.bincount(image.astype(int).ravel(), minlength=64) / 64
        np.testing.assert_allclose(label, shares, atol=1e-6)
    assert ((labels > 0).sum(-1) == 2).sum() > 40


def test_cutmix_puts_one_rectangle_of_the_partner_at_its_own_place() -> None:
    places = jnp.arange(64.0).reshape(8, 8)[None, :, :, None] + 100 * numbered(32)
    images, _ = augment.cutmix(KEY, places, one_hot(32))
    assert np.array_equal(np.asarray(images) % 100, np.asarray(places) % 100)
    for i, image in enumerate(np.asarray(images)[..., 0] // 100):
        foreign = image != i
        assert np.array_equal(foreign, np.outer(foreign.any(1), foreign.any(0)))
        assert len(set(image[foreign])) <= 1


def test_cutmix_with_an_even_alpha_keeps_every_share_alike() -> None:
    _, labels = augment.cutmix(KEY, numbered(2000, 16), one_hot(2000))
    kept = np.asarray(labels)[np.arange(2000), np.arange(2000)]
    # Rectangles lose what lies outside of the image, so that more than half is kept.
    assert kept.min() < 0.25
    assert 0.69 < kept.mean() < 0.74
    assert 300 < (kept > 0.9).sum() < 450


@MIXES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_soft_labels_keep_their_dtype_and_their_sum(mix, dtype) -> None:
    soft = optax.smooth_labels(one_hot(16), 0.1).astype(dtype)
    _, labels = mix(KEY, photos(), soft)
    assert labels.dtype == dtype
    np.testing.assert_allclose(labels.astype("float32").sum(-1), 1, atol=2e-2)


@MIXES
def test_classes_become_soft_labels(mix) -> None:
    classes = jnp.arange(16, dtype=jnp.int32) % 5
    _, labels = mix(KEY, photos(), classes, num_classes=5)
    expected = mix(KEY, photos(), jax.nn.one_hot(classes, 5))[1]
    assert labels.dtype == jnp.float32
    assert np.array_equal(labels, expected)


@MIXES
@pytest.mark.parametrize("alpha", [1e-3, 1e3])
def test_extreme_alphas_give_finite_labels(mix, alpha) -> None:
    _, labels = mix(KEY, numbered(64), one_hot(64), alpha)
    assert jnp.isfinite(labels).all()
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-5)


class Small(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(images.shape[0], -1))


class Augmented(bx.TrainerModule):
    """Changes its training images in its loss."""

    def loss_function(self, model, batch, train):
        images, labels = batch[0], jax.nn.one_hot(batch[1], 3)
        if train:
            images = augment.crop(model.rng("augment"), images, padding=1)
            images = augment.flip(model.rng("augment"), images, probability=model.hparams["flips"])
            images, labels = augment.cutmix(model.rng("mix"), images, labels)
        logits = model(images.astype(jnp.float32) / 255)
        return optax.softmax_cross_entropy(logits, labels), {}


def test_a_run_that_augments_in_its_loss_resumes_bit_for_bit() -> None:
    def loaders():
        batch = np.asarray(photos(12, 4, 4, np.uint8)), np.arange(12, dtype=np.int32) % 3
        return [bx.data.ArrayLoader(batch, 4, shuffle=True)]

    def trainer(log_dir):
        return Augmented(
            Small,
            {},
            {"lr": 1e-2},
            next(iter(loaders()[0])),
            logger_params={"log_dir": log_dir, "logger_type": "none"},
            enable_progress_bar=False,
            flips=0.5,
        )

    assert_resumes_exactly(trainer, loaders, interrupt_at=4)


@EACH
def test_what_is_no_batch_of_images_is_an_error(change) -> None:
    with pytest.raises(DataError, match=r"images float32\[8, 10, 3\].*Write images\[None\]"):
        change(KEY, jnp.zeros((8, 10, 3)))


def test_key_and_images_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(DataError, match=r"Received images key<.*>\[\]; expected an array"):
        augment.flip(photos(), KEY)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan"), "half", None, True])
def test_what_is_no_probability_is_an_error(probability) -> None:
    with pytest.raises(ConfigurationError, match=r"Received probability=.*from 0 to 1.*Write"):
        augment.flip(KEY, photos(), probability=probability)


@MIXES
@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf"), "0.2", None])
def test_what_is_no_alpha_is_an_error(mix, alpha) -> None:
    with pytest.raises(ConfigurationError, match=r"Received alpha=.*positive number.*Write alpha"):
        mix(KEY, photos(), one_hot(16), alpha)


def test_misspelt_names_are_errors() -> None:
    with pytest.raises(UnknownNameError, match=r"axis of flip 'horizontl'.*Did you mean 'horiz"):
        augment.flip(KEY, photos(), "horizontl")
    with pytest.raises(UnknownNameError, match=r"mode of crop 'reflct'.*Did you mean 'reflect'"):
        augment.crop(KEY, photos(), mode="reflct")


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", True, (1, 2, 3), (4, 0), None])
def test_what_is_no_size_is_an_error(size) -> None:
    with pytest.raises(ConfigurationError, match=r"Received size=.*at least 1.*Write size=8"):
        augment.cutout(KEY, photos(), size)


def test_a_size_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"size=\(9, 9\), larger than the image, 8 x 10"):
        augment.cutout(KEY, photos(), 9)
    with pytest.raises(
        ConfigurationError, match=r"size=\(8, 13\), larger.*padding, 10 x 12;.*most"
    ):
        augment.crop(KEY, photos(), 1, size=(8, 13))


def test_negative_padding_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"Received padding=-1; .*at least 0.*Write"):
        augment.crop(KEY, photos(), -1)


@pytest.mark.parametrize("fill", [0.5, -1, 256, float("nan"), (0.0, 0.1, 0.0)])
def test_a_fill_that_bytes_cannot_hold_is_an_error(fill) -> None:
    with pytest.raises(ConfigurationError, match=r"Received fill=.*uint8 can hold.*Write fill=0"):
        augment.cutout(KEY, photos(dtype=np.uint8), 2, fill)


def test_a_fill_for_other_channels_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"fill of shape \[2\].*each of the 3 channels"):
        augment.cutout(KEY, photos(), 2, (0.0, 1.0))


@MIXES
def test_classes_without_their_number_are_an_error(mix) -> None:
    with pytest.raises(ConfigurationError, match=r"int32\[16\] without num_classes.*one_hot"):
        mix(KEY, photos(), jnp.zeros(16, jnp.int32))


@MIXES
@pytest.mark.parametrize(
    "labels", [np.zeros(15, int), np.zeros((16, 3), int), np.zeros(16, bool), [0] * 16, None]
)
def test_labels_that_are_no_classes_of_the_batch_are_an_error(mix, labels) -> None:
    with pytest.raises(DataError, match=r"Received labels .* for 16 images; expected classes"):
        mix(KEY, photos(), labels, num_classes=3)


@MIXES
@pytest.mark.parametrize("shape", [(15, 3), (16,), (16, 3, 3)])
def test_soft_labels_of_another_shape_are_an_error(mix, shape) -> None:
    with pytest.raises(DataError, match=r"expected floating labels \[16, classes\].*Write labels"):
        mix(KEY, photos(), jnp.zeros(shape))


@MIXES
def test_a_number_of_classes_that_contradicts_the_labels_is_an_error(mix) -> None:
    with pytest.raises(ConfigurationError, match=r"num_classes=10 .*own number, 16. Leave"):
        mix(KEY, photos(), one_hot(16), num_classes=10)
