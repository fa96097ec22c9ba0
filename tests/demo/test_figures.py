"""The demo's pictures: PNG files of a sensible size, for usual and for odd results."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boltax.demo._figures import plot_confusion, plot_curves, plot_mistakes
from boltax.errors import ConfigurationError

matplotlib_image = pytest.importorskip("matplotlib.image")

CLASSES = ("cat", "dog", "ankle boot")


def read(path: Path) -> np.ndarray:
    """The pixels [height, width, 4] of a PNG file, after checks that hold for every picture."""
    image = matplotlib_image.imread(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert 150 < image.shape[0] < 3000
    assert 300 < image.shape[1] < 3000
    assert 5_000 < path.stat().st_size < 500_000
    assert image.std() > 0.02, "the picture is empty"
    return image


def has_color(image: np.ndarray, color: str) -> bool:
    """Whether some pixels have clearly more of this colour than of the two others."""
    channels = [image[..., channel] for channel in range(3)]
    strongest = channels.pop(("red", "green", "blue").index(color))
    return bool((strongest - np.maximum(*channels) > 0.12).any())


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train/loss": 1 / epoch,
            "val/loss": 1.2 / epoch,
            "train/acc": 1 - 0.5 / epoch,
            "val/acc": 1 - 0.6 / epoch,
            "lr": 0.1 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def without(rows: list[dict[str, float]], *names: str) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


ROWS = {
    "usual": history(20),
    "one epoch": history(1),
    "no validation": without(history(5), "val/loss", "val/acc"),
    "validation every second epoch": [*without(history(1), "val/loss", "val/acc"), history(2)[1]],
    "no learning rate": without(history(5), "lr"),
    "a loss that is no number": [
        *history(4),
        {"epoch": 5, "train/loss": math.nan, "val/loss": math.nan},
    ],
    "only losses that are no numbers": [{"epoch": 1, "train/loss": math.nan, "val/loss": math.inf}],
    "perfect from the start": [
        {"epoch": 1, "train/acc": 1.0, "val/acc": 1.0, "val/loss": 0.0, "train/loss": 0.0}
    ],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_curves(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    plot_curves(rows, tmp_path / "curves.png")
    read(tmp_path / "curves.png")


def test_curves_show_what_they_are_given(tmp_path: Path) -> None:
    plot_curves(history(5), tmp_path / "all.png")
    plot_curves(without(history(5), "lr"), tmp_path / "less.png")
    assert has_color(read(tmp_path / "all.png"), "green")
    assert not has_color(read(tmp_path / "less.png"), "green")


def test_curves_need_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected one mapping for each epoch"):
        plot_curves([], tmp_path / "curves.png")


@pytest.mark.parametrize(
    "matrix, is_wrong",
    [([[5, 1, 0], [0, 7, 0], [2, 0, 4]], True), ([[5, 0, 0], [0, 7, 0], [0, 0, 0]], False)],
    ids=["mistakes", "none, and a class without examples"],
)
def test_confusion_shows_mistakes_in_red(
    tmp_path: Path, matrix: list[list[int]], is_wrong: bool
) -> None:
    plot_confusion(np.array(matrix), CLASSES, tmp_path / "confusion.png")
    image = read(tmp_path / "confusion.png")
    assert has_color(image, "blue")
    assert has_color(image, "red") == is_wrong


def predictions(count: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of which the first `wrong` are for another class."""
    labels = np.arange(count) % 3
    answers = np.where(np.arange(count) < wrong, (labels + 1) % 3, labels)
    sure = np.linspace(0.5, 0.99, count)[:, None]
    return labels, np.where(np.eye(3)[answers] > 0, sure, (1 - sure) / 2)


MISTAKES = {
    "more than fit": (100, 60, np.uint8, 1),
    "as many as fit": (100, 24, np.float32, 1),
    "few": (100, 2, np.float32, 1),
    "none": (30, 0, np.float32, 3),
    "one image": (1, 1, np.uint8, 3),
}


@pytest.mark.parametrize("count, wrong, dtype, channels", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path: Path, count: int, wrong: int, dtype: type, channels: int) -> None:
    pixels = np.random.default_rng(0).random((count, 8, 8, channels))
    images = (pixels * 255).astype(np.uint8) if dtype is np.uint8 else pixels.astype(dtype)
    grey = np.repeat(images[..., :1], channels, axis=-1)  # so that only titles have colours
    plot_mistakes(grey, *predictions(count, wrong), CLASSES, tmp_path / "mistakes.png")
    image = read(tmp_path / "mistakes.png")
    assert has_color(image, "red") == (wrong > 0)
    assert has_color(image, "green") == (wrong < min(count, 24))


def test_figures_need_no_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from boltax.demo._figures import plot_confusion\n"
        "plot_confusion(np.eye(2), ('a', 'b'), 'confusion.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    read(tmp_path / "confusion.png")
