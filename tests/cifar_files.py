"""Small folders in the layouts of CIFAR-10, for the tests of their reader and of what uses it."""

import json
from pathlib import Path

import numpy as np

from boltax.demo._cifar import CIFAR10_CLASSES

Examples = tuple[np.ndarray, np.ndarray]
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))


def examples(count: int, seed: int = 0) -> Examples:
    """Noise of 32x32 pixels; the classes 0 to 9 take turns."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return images, np.arange(count) % 10


def write_binary(folder: Path, train: Examples, test: Examples) -> Path:
    """``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in _files(train, test).items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def write_sheets(folder: Path, train: Examples, test: Examples) -> Path:
    """Six PNG files whose rows are images, and two lists of labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, _) in _files(train, test).items():
        write_png(folder / f"{name}.png", images.reshape(len(images), 1024, 3))
    for part, (_, labels) in (("train", train), ("test", test)):
        (folder / f"{part}_lables.json").write_text(json.dumps(labels.tolist()))
    return folder


def write_folders(folder: Path, train: Examples, test: Examples) -> Path:
    """``{train,test}/<class>/<number>.png``."""
    for part, (images, labels) in (("train", train), ("test", test)):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / part / CIFAR10_CLASSES[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_png(file, image)
    return folder


def write_png(file: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file)


def _files(train: Examples, test: Examples) -> dict[str, Examples]:
    parts = zip(*(np.array_split(array, len(TRAIN)) for array in train), strict=True)
    return {**dict(zip(TRAIN, parts, strict=True)), "test_batch": test}
