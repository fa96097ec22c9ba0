"""The demo's data: fixed, stratified splits, and idx files that are read or refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from boltax.demo._data import DemoData, load_digits, load_fashion_mnist
from boltax.errors import DataError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array: np.ndarray) -> bytes:
    """The idx file of an array of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def contents() -> dict[str, bytes]:
    """Small files in the form of Fashion-MNIST: 120 training and 20 test images of 4x4 pixels.

    Every image begins with a pixel that is its number, and its label is the last digit of that.
    """
    files = {}
    for part, count in (("train", 120), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = np.arange(count)[:, None] + np.arange(16)
        files[f"{part}-images-idx3-ubyte"] = idx(images.reshape(count, 4, 4))
        files[f"{part}-labels-idx1-ubyte"] = idx(labels)
    return files


def write(folder: Path, files: dict[str, bytes], *, is_gzipped: bool = True) -> Path:
    for name, content in files.items():
        target = folder / (f"{name}.gz" if is_gzipped else name)
        target.write_bytes(gzip.compress(content) if is_gzipped else content)
    return folder


@pytest.fixture(scope="module")
def digits() -> DemoData:
    pytest.importorskip("sklearn")
    return load_digits()


def test_digits_are_scaled_images_with_labels(digits: DemoData) -> None:
    images, labels = digits.train
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert digits.image_shape == (8, 8, 1)
    assert images.min() == 0.0
    assert images.max() == 1.0
    assert digits.class_names == tuple("0123456789")


def test_digits_split_uses_every_image_once(digits: DemoData) -> None:
    parts = (digits.train, digits.val, digits.test)
    assert [len(labels) for _, labels in parts] == [1257, 180, 360]
    pixels = np.concatenate([images.reshape(len(images), -1) for images, _ in parts])
    original = pytest.importorskip("sklearn.datasets").load_digits().data / 16
    assert np.array_equal(
        np.sort(pixels @ np.arange(64)), np.sort(original.astype(np.float32) @ np.arange(64))
    )


def test_digits_split_has_all_classes_in_equal_shares(digits: DemoData) -> None:
    whole = np.bincount(np.concatenate([digits.train[1], digits.val[1], digits.test[1]]))
    for _, labels in (digits.train, digits.val, digits.test):
        expected = whole * len(labels) / whole.sum()
        assert np.abs(np.bincount(labels) - expected).max() <= 1.5


def test_digits_split_depends_on_the_seed_alone(digits: DemoData) -> None:
    assert np.array_equal(load_digits(seed=0).test[0], digits.test[0])
    assert not np.array_equal(load_digits(seed=1).test[0], digits.test[0])


@pytest.mark.parametrize("is_gzipped", [True, False])
def test_fashion_mnist_reads_idx_files(tmp_path: Path, is_gzipped: bool) -> None:
    data = load_fashion_mnist(write(tmp_path, contents(), is_gzipped=is_gzipped))
    assert [len(labels) for _, labels in (data.train, data.val, data.test)] == [110, 10, 20]
    assert data.train[0].dtype == np.uint8
    assert data.train[1].dtype == np.int32
    assert data.image_shape == (4, 4, 1)
    assert len(data.class_names) == 10
    assert np.array_equal(data.test[0][7].ravel(), np.arange(7, 23))


def test_fashion_mnist_validates_on_every_class(tmp_path: Path) -> None:
    labels = load_fashion_mnist(write(tmp_path, contents())).val[1]
    assert sorted(labels.tolist()) == list(range(10))


def test_images_stay_with_their_labels(tmp_path: Path) -> None:
    data = load_fashion_mnist(write(tmp_path, contents()))
    for images, labels in (data.train, data.val):
        assert np.array_equal(images[:, 0, 0, 0] % 10, labels)


def test_absent_files_tell_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"expected the four idx files.*apt-get install dataset-fashion-mnist.*--path",
    ):
        load_fashion_mnist(tmp_path)


def test_one_absent_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, {name: content for name, content in contents().items() if name != NAMES[3]})
    with pytest.raises(DataError, match=f"no file {NAMES[3]}.gz"):
        load_fashion_mnist(tmp_path)


DAMAGE = {
    "not an idx file": (NAMES[0], b"hello, world", "begins with the bytes 68 65 6c 6c"),
    "empty": (NAMES[0], b"", r"begins with the bytes \(none\)"),
    "cut off": (
        NAMES[0],
        idx(np.zeros((120, 4, 4)))[:-1],
        r"with 1,919 bytes after its header; expected 1,920",
    ),
    "too long": (
        NAMES[1],
        idx(np.zeros(120)) + b"0",
        "with 121 bytes after its header; expected 120",
    ),
    "wrong axes": (
        NAMES[0],
        idx(np.zeros(120)),
        "expected an idx file of unsigned bytes with 3 axes",
    ),
    "a huge size": (NAMES[1], bytes((0, 0, 8, 1, 255, 255, 255, 255)), "expected 4,294,967,295"),
    "labels and images differ": (NAMES[1], idx(np.zeros(119)), "120 images .* and 119 labels"),
    "no image": (NAMES[0], idx(np.zeros((0, 4, 4))), "0 images"),
    "a label too high": (NAMES[3], idx(np.full(20, 10)), "Received the label 10"),
}


@pytest.mark.parametrize("name, content, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write(tmp_path, {**contents(), name: content}, is_gzipped=False)
    with pytest.raises(DataError, match=message):
        load_fashion_mnist(tmp_path)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, contents())
    file = tmp_path / f"{NAMES[0]}.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load_fashion_mnist(tmp_path)
