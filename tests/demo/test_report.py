"""What the demo prints: the results of the best epoch, and lines to be typed as they stand."""

from pathlib import Path

import numpy as np
import pytest

from boltax.demo._data import DemoData
from boltax.demo._report import best_row, print_next_steps, print_results, shortest

ROWS = [
    {"epoch": 1, "train/acc": 0.5, "train/loss": 2.0, "val/acc": 0.5, "val/loss": 1.5},
    {"epoch": 2, "train/acc": 0.75, "train/loss": 1.0, "val/acc": 0.875, "val/loss": 0.5},
    {"epoch": 3, "train/acc": 1.0, "train/loss": 0.5, "val/acc": 0.75, "val/loss": float("nan")},
]
METRICS = {"val/acc": 0.875, "val/loss": 0.5, "test/acc": 0.625, "test/loss": 0.75}


def data() -> DemoData:
    parts = [
        (np.zeros((count, 4, 5, 1), np.float32), np.zeros(count, np.int32))
        for count in (1200, 8, 16)
    ]
    return DemoData("shapes", *parts, class_names=("circle", "square"))


def test_results_are_those_of_the_best_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(data(), ROWS, METRICS, parameters=12_345, seconds=6.78)
    text = capsys.readouterr().out
    lines = {
        line.split("│")[1].strip(): line.split("│")[2:5]
        for line in text.splitlines()
        if "│" in line
    }
    cells = {name: [cell.strip() for cell in row] for name, row in lines.items()}
    assert cells == {
        "training": ["1,200", "75.00%", "1.0000"],
        "validation": ["8", "87.50%", "0.5000"],
        "test": ["16", "62.50%", "0.7500"],
    }
    assert "epoch 2" in text
    assert "12,345 parameters, 3 epochs, 6.8 s" in text


def test_the_best_epoch_is_the_last_one_when_no_loss_is_finite() -> None:
    assert best_row([{"epoch": 1}, {"epoch": 2, "val/loss": float("nan")}])["epoch"] == 2


def test_next_steps_name_the_folders(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(Path("runs") / ("a long name " * 10) / "version_0")
    pictures = [Path(folder) / "a.png", Path(folder) / "b.png"]
    print_next_steps(data(), pictures, log_dir=Path(folder).absolute(), base="runs")
    lines = capsys.readouterr().out.splitlines()
    assert f"Pictures in {folder}: a.png, b.png" in lines
    assert any(line.endswith("tensorboard --logdir runs") for line in lines)
    assert f"    model = DemoClassifier.load_from_checkpoint({folder!r}).bind_model()" in lines
    assert "    logits = model(images)  # [batch, 4, 5, 1] -> [batch, 2]" in lines


def test_paths_are_relative_only_within_the_current_folder(tmp_path: Path) -> None:
    assert shortest(tmp_path / "runs") == "runs"
    assert shortest(tmp_path.parent) == str(tmp_path.parent)
    assert shortest("../elsewhere") == "../elsewhere"
