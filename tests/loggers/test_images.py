import io

import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread

from boltax.errors import ConfigurationError
from boltax.loggers._images import (
    as_images,
    check_figure,
    figure_array,
    figure_png,
    grid,
    png,
    png_size,
    release_figure,
)


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((4, 5), (1, 4, 5, 1)),
        ((4, 5, 1), (1, 4, 5, 1)),
        ((4, 5, 3), (1, 4, 5, 3)),
        ((4, 5, 4), (1, 4, 5, 4)),
        ((6, 4, 5, 3), (6, 4, 5, 3)),
    ],
)
def test_every_shape_becomes_a_batch(shape, expected):
    found = as_images(np.zeros(shape, np.float32))
    assert found.shape == expected
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[-3.0, 1.7, np.nan]]), [0, 255, 0]),
        (np.array([[0, 7, 255]], np.int64), [0, 7, 255]),
        (np.array([[False, True, False]]), [0, 255, 0]),
        (jnp.array([[0.0, 1.0, 0.5]], jnp.bfloat16), [0, 255, 128]),
    ],
)
def test_every_dtype_becomes_bytes(values, expected):
    assert as_images(values).ravel().tolist() == expected


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((3, 8, 8)), r"float64\[3, 8, 8\].*images\[..., None\]"),
        (np.zeros((2, 3, 8, 8)), r"float64\[2, 3, 8, 8\].*moveaxis"),
        (np.zeros((2, 2, 8, 8, 3)), r"expected \[H, W\], \[H, W, C\] or \[N, H, W, C\]"),
        (np.zeros(8), r"float64\[8\]"),
        (np.zeros((0, 8, 8, 3)), r"float64\[0, 8, 8, 3\]"),
        (np.full((2, 2), 300), "int64.* from 300 to 300; expected"),
        (np.array([["a", "b"]]), r"<U1\[1, 2\]"),
    ],
)
def test_what_is_no_image_is_refused_in_three_parts(images, message):
    with pytest.raises(ConfigurationError, match=message):
        as_images(images)


def test_a_grid_has_about_as_many_rows_as_columns():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 3, 1), np.uint8)
    canvas = grid(images)
    assert canvas.shape == (4 * 2 + 2, 3 * 3 + 2 * 2, 1)
    assert [canvas[0, 0, 0], canvas[0, 5, 0], canvas[0, 10, 0], canvas[6, 0, 0]] == [1, 2, 3, 4]
    assert canvas[4, 0, 0] == canvas[-1, -1, 0] == 0


def test_a_grid_of_one_image_is_that_image():
    image = np.random.default_rng(0).integers(0, 255, (1, 5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(grid(image), image[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_reads_back_the_same(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    data = png(image)
    found = (imread(io.BytesIO(data), format="png") * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(found.reshape(image.shape), image)
    assert png_size(data) == (7, 5)


def test_a_figure_is_rendered_without_pyplot(figure):
    canvas, backend = figure.canvas, mpl.get_backend()
    assert png_size(figure_png(figure)) == (300, 200)
    pixels = figure_array(figure)
    assert pixels.shape == (200, 300, 4)
    assert pixels[0, 0].tolist() == [255, 255, 255, 255]
    assert (figure.canvas, mpl.get_backend(), plt.get_fignums()) == (canvas, backend, [])


def test_what_is_no_figure_is_refused(figure):
    check_figure(figure)
    with pytest.raises(ConfigurationError, match=r"type Axes; expected.*axes\.figure"):
        check_figure(figure.axes[0])


def test_a_released_figure_leaves_pyplots_list_and_can_still_be_drawn():
    drawn, _ = plt.subplots()
    release_figure(drawn)
    assert plt.get_fignums() == []
    assert figure_png(drawn).startswith(b"\x89PNG")
