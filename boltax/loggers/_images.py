"""Images and figures as PNG, with zlib and struct alone.

Loggers show what a user gives them: one image or a batch, whole numbers or floats, matplotlib
figures. All of it becomes uint8 ``[N, H, W, C]`` or PNG bytes here. Nothing is written to disk,
and pyplot's list of open figures is left alone.
"""

import io
import math
import struct
import sys
import zlib
from typing import Any, TypeAlias

import numpy as np

from boltax._base._trees import describe_leaf
from boltax.errors import ConfigurationError
from boltax.loggers._values import as_array

Images: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> PNG colour type: grey, RGB, RGBA
_GAP = 2  # pixels between the images of a grid


def as_images(images: object) -> Images:
    """One image or a batch of them as uint8 ``[N, H, W, C]``.

    Args:
        images: ``[H, W]``, ``[H, W, C]`` or ``[N, H, W, C]`` with 1, 3 or 4 channels. Floats are
            read as 0 to 1 and clipped to that, NaN is black; whole numbers are read as 0 to 255.

    Raises:
        ConfigurationError: when the shape, the dtype or the range is none of these.
    """
    array = as_array(images)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[-1] not in _COLOUR_TYPES or not array.size:
        raise _unfit(images)
    return _as_bytes(array, images)


def _as_bytes(array: np.ndarray[Any, Any], received: object) -> Images:
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise _unfit(received, f" from {array.min()} to {array.max()}")
        return array.astype(np.uint8)
    if kind in "OSUmMc":
        raise _unfit(received)
    unit = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return (unit.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def _unfit(received: object, values: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"Received images {describe_leaf(received)}{values}; expected [H, W], [H, W, C] or "
        "[N, H, W, C] with 1, 3 or 4 channels, as floats from 0 to 1 or whole numbers from 0 to "
        "255. Write images[..., None] for a batch without channels, and "
        "numpy.moveaxis(images, -3, -1) for channels that come first."
    )


def grid(images: Images) -> Images:
    """A batch as one image ``[H, W, C]``, in rows of about as many columns, with a small gap."""
    number, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    step_y, step_x = height + _GAP, width + _GAP
    canvas = np.zeros((rows * step_y - _GAP, columns * step_x - _GAP, channels), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * step_y, index % columns * step_x
        canvas[top : top + height, left : left + width] = image
    return canvas


def png(image: Images) -> bytes:
    """The PNG file of one image, uint8 ``[H, W, C]``."""
    height, width, channels = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each starts with filter 0, none
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG file."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def check_figure(figure: object) -> None:
    """Makes sure that something is a matplotlib figure.

    Raises:
        ConfigurationError: when it is not.
    """
    module = sys.modules.get("matplotlib.figure")  # whoever has a figure has imported this
    if module is None or not isinstance(figure, module.Figure):
        raise ConfigurationError(
            f"Received a figure of type {type(figure).__name__}; expected a matplotlib Figure. "
            "Write figure, axes = plt.subplots() and give the figure, or axes.figure."
        )


def figure_png(figure: Any) -> bytes:
    """The PNG file of a matplotlib figure; its canvas and backend stay as they are."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def figure_array(figure: Any) -> Images:
    """The pixels of a matplotlib figure, uint8 ``[H, W, 4]``."""
    from matplotlib.image import imread

    pixels: Any = imread(io.BytesIO(figure_png(figure)), format="png")
    return (pixels * 255.0).round().astype(np.uint8)


def release_figure(figure: object) -> None:
    """Takes a figure off pyplot's list of open ones, which would grow with every epoch."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
