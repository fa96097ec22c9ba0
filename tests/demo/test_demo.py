"""The demo from start to end, on all digits but with a tiny network."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

from boltax.demo import _recipes
from boltax.demo._classifier import DemoClassifier
from boltax.demo._data import load_digits
from boltax.demo._demo import DemoResult, run

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TINY = {"num_classes": 10, "block_sizes": (1,), "widths": (8,), "stem_stride": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, str]:
    """A run of three epochs, and what it printed."""
    recipe = dataclasses.replace(_recipes.RECIPES["digits"], model_hparams=TINY)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as text:
        patch.setattr(_recipes, "RECIPES", {"digits": recipe})
        result = run("digits", epochs=3, log_dir=tmp_path_factory.mktemp("runs"))
    return result, text.getvalue()


def test_it_learns(finished: tuple[DemoResult, str]) -> None:
    metrics = finished[0].metrics
    assert metrics["test/acc"] > 0.3
    assert metrics["val/acc"] > 0.3


def test_it_writes_pictures_into_the_folder_of_the_run(finished: tuple[DemoResult, str]) -> None:
    result = finished[0]
    assert {figure.name for figure in result.figures} == {
        "curves.png",
        "confusion.png",
        "mistakes.png",
    }
    assert all(
        figure.parent == Path(result.log_dir) and figure.is_file() for figure in result.figures
    )


def test_the_history_has_the_learning_rate(finished: tuple[DemoResult, str]) -> None:
    header, *rows = (Path(finished[0].log_dir) / "history.csv").read_text().splitlines()
    rates = [float(row.split(",")[header.split(",").index("lr")]) for row in rows]
    assert len(rates) == 3
    assert rates[0] > rates[1] > rates[2] > 0


def test_it_prints_results_and_what_to_do_next(finished: tuple[DemoResult, str]) -> None:
    result, text = finished
    assert f"{result.metrics['test/acc']:.2%}" in text
    assert "tensorboard --logdir" in text
    assert f"load_from_checkpoint({result.log_dir!r})" in text


def test_the_model_can_be_loaded_from_the_folder_alone(finished: tuple[DemoResult, str]) -> None:
    result = finished[0]
    model = DemoClassifier.load_from_checkpoint(result.log_dir).bind_model()
    images, labels = load_digits().test
    accuracy = np.mean(np.asarray(model(images)).argmax(-1) == labels)
    assert accuracy == pytest.approx(result.metrics["test/acc"], abs=1e-6)
    stored = json.loads((Path(result.log_dir) / "metrics" / "test.json").read_text())
    assert stored["test/acc"] == pytest.approx(accuracy, abs=1e-6)
