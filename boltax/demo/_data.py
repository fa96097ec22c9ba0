"""The real images of the demo: scikit-learn's digits, and Fashion-MNIST from idx files.

Downloads nothing.
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boltax._base._optional import import_optional
from boltax.errors import DataError

FASHION_MNIST_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package ``dataset-fashion-mnist`` puts its files."""

_FASHION_CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTES = 0x08  # the idx format's code for its element type
_GZIP_MAGIC = b"\x1f\x8b"

Examples = tuple[NDArray[np.generic], NDArray[np.int32]]
"""Images ``[examples, height, width, channels]`` and labels ``[examples]``."""


@dataclass(frozen=True)
class DemoData:
    """A labelled image data set in memory, split three ways.

    Attributes:
        name: the data set's name.
        train: images and labels to train on.
        val: images and labels that choose the best model.
        test: images and labels that are looked at once, at the end.
        class_names: the name of each label.
    """

    name: str
    train: Examples
    val: Examples
    test: Examples
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image."""
        return self.train[0].shape[1:]


def load_digits(seed: int = 0) -> DemoData:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8 pixels each.

    Args:
        seed: of the split; the same seed always gives the same three sets.

    Returns:
        1,257 training, 180 validation and 360 test examples with all classes in equal shares;
        images are float32 ``[examples, 8, 8, 1]`` between 0 and 1.

    Raises:
        MissingExtraError: when scikit-learn is not installed.

    Example:
        >>> load_digits().image_shape
        (8, 8, 1)
    """
    datasets = import_optional("sklearn.datasets", extra="demo", purpose="the digits of the demo")
    digits = datasets.load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int32)
    test, val, train = split(labels, (360, 180), seed)
    return DemoData(
        name="digits",
        train=(images[train], labels[train]),
        val=(images[val], labels[val]),
        test=(images[test], labels[test]),
        class_names=tuple(str(name) for name in digits.target_names),
    )


def load_fashion_mnist(path: str | Path | None = None, seed: int = 0) -> DemoData:
    """The 70,000 clothes of Fashion-MNIST, 28x28 pixels each, from the four idx files.

    Args:
        path: folder with the four files, gzipped or not; by default that of the Debian package.
        seed: of the split of the 60,000 training images into training and validation.

    Returns:
        55,000 training, 5,000 validation and 10,000 test examples; images are uint8
        ``[examples, 28, 28, 1]``.

    Raises:
        DataError: when a file is absent, or is not the idx file that its name says.

    References:
        Xiao et al., "Fashion-MNIST", 2017, https://arxiv.org/abs/1708.07747
    """
    folder = Path(FASHION_MNIST_FOLDER if path is None else path)
    images, labels = _read_examples(folder, "train")
    val, train = split(labels, (len(labels) // 12,), seed)
    return DemoData(
        name="fashion-mnist",
        train=(images[train], labels[train]),
        val=(images[val], labels[val]),
        test=_read_examples(folder, "t10k"),
        class_names=_FASHION_CLASSES,
    )


def split(labels: NDArray[np.int32], sizes: tuple[int, ...], seed: int) -> list[NDArray[np.intp]]:
    """Indices of disjoint sets of the given sizes, then of the rest: equal shares of each class.

    Args:
        labels: the class of each example.
        sizes: how many examples are in each set but the last.
        seed: of the choice.
    """
    random = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[random.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    # Sorted by their place within their class, every stretch has the classes in equal shares.
    return np.split(np.argsort(place, kind="stable"), np.cumsum(sizes))


def _read_examples(folder: Path, part: str) -> Examples:
    images_file = _find(folder, f"{part}-images-idx3-ubyte")
    labels_file = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = _read_idx(images_file, axes=3), _read_idx(labels_file, axes=1)
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(
            f"Received {len(images)} images in {images_file} and {len(labels)} labels in "
            f"{labels_file}; expected as many labels as images, and at least one. "
            "Get the four files anew, from one source."
        )
    if labels.max() >= len(_FASHION_CLASSES):
        raise DataError(
            f"Received the label {labels.max()} in {labels_file}; expected labels from 0 to "
            f"{len(_FASHION_CLASSES) - 1}. Give --path a folder with the files of Fashion-MNIST."
        )
    return images[..., None], labels.astype(np.int32)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"Received the folder {str(folder)!r}, which has no file {name}.gz or {name}; expected the "
        "four idx files of Fashion-MNIST. Run `apt-get install dataset-fashion-mnist` (Debian, "
        "Ubuntu), or give --path DIR, a folder with {train,t10k}-images-idx3-ubyte.gz and "
        "{train,t10k}-labels-idx1-ubyte.gz."
    )


def _read_idx(file: Path, axes: int) -> NDArray[np.uint8]:
    """The array in an idx file: 0, 0, element type, number of axes; big-endian sizes; elements."""
    content = _read_bytes(file)
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, _UNSIGNED_BYTES, axes)):
        raise DataError(
            f"Received {file}, which begins with the bytes {content[:4].hex(' ') or '(none)'}; "
            f"expected an idx file of unsigned bytes with {axes} axes (00 00 08 {axes:02x}). "
            "Get the file anew."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=axes, offset=4))
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"Received {file} with {len(content) - header:,} bytes after its header; expected "
            f"{math.prod(shape):,}, since the header gives the shape {list(shape)}. The file is "
            "cut off or damaged: get it anew."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_bytes(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"Received {file}, which cannot be read ({error}); expected an idx file, gzipped or "
            "not. Check that you may read it, or get it anew."
        ) from error
