"""Every example runs as its users run it, and leaves what it promises.

A new file in `examples/` is covered without a change here. It takes ``--epochs`` and ``--log-dir``
(``--width``, where that makes it quick; ``--trials``, when it searches; ``--text`` or ``--texts``,
when it reads some; ``--data`` and ``--model``, when it reads CIFAR-10), and names its pictures in
its docstring.
"""

import ast
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import cifar_files
from warm_python import FOR_TRAINING, QUICK_TO_COMPILE, WarmPython

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
EACH = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def python():
    warm = WarmPython(FOR_TRAINING, ["-W", "error"], **STRICT, **QUICK_TO_COMPILE)
    yield warm
    warm.close()


def run(python, example, log_dir):
    """Runs an example for two epochs, strictly, and returns what it printed."""
    arguments = ["--epochs", "2", "--log-dir", str(log_dir), *other_arguments(example, log_dir)]
    done = python.run(example, *arguments, folder=log_dir)
    assert done.returncode == 0, done.output
    return done.output


def other_arguments(example, folder):
    """What makes an example that takes it small."""
    text = example.read_text()
    if '"--width"' in text:
        more = ["--texts", "120"] if '"--texts"' in text else []
        return ["--width", "8", *more]
    if '"--trials"' in text:
        return ["--trials", "2"]
    if '"--text"' in text:
        path = folder / "text.txt"
        path.write_text("".join(f"{number} times 7 is {7 * number}.\n" for number in range(300)))
        return ["--text", str(path), "--layers", "1"]
    if '"--data"' in text:
        parts = cifar_files.examples(40, seed=0), cifar_files.examples(10, seed=1)
        data = cifar_files.write_binary(folder / "cifar", *parts)
        return ["--data", str(data), "--model", "resnet8", "--batch-size", "18"]
    return []


def imported_packages(example):
    """The packages that an example imports."""
    for node in ast.walk(ast.parse(example.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def promised_pictures(example):
    return re.findall(r"[\w-]+\.png", ast.get_docstring(ast.parse(example.read_text())))


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), path
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def check_population(folder):
    """Each member of a population has trained, and left its best model."""
    with (folder / "members.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        best = folder / "members" / f"{int(row['member']):03d}" / "checkpoints" / "best"
        assert row["epoch"] == "2"
        assert any(best.iterdir())


@EACH
def test_it_runs_and_leaves_results_and_pictures(python, example, tmp_path):
    for package in imported_packages(example):
        pytest.importorskip(package)
    printed = run(python, example, tmp_path)
    runs = [path.parent for path in tmp_path.rglob("hparams.json")]
    assert runs
    populations = {path.parent for path in tmp_path.rglob("members.csv")}
    for folder in populations:
        check_population(folder)
    members = {member for folder in populations for member in folder.glob("members/*")}
    for folder in set(runs) - populations - members:
        with (folder / "history.csv").open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
        results = {
            path.stem: json.loads(path.read_text()) for path in folder.glob("metrics/*.json")
        }
        assert "best_eval" in results
        assert all(values for values in results.values())
        assert all(np.isfinite(v).all() for values in results.values() for v in values.values())
        assert any((folder / "checkpoints" / "best").iterdir())
    for picture in promised_pictures(example):
        (path,) = tmp_path.rglob(picture)
        assert min(png_size(path)) >= 100
        assert picture in printed


@EACH
def test_it_fits_on_some_screens_and_says_how_to_run_it(example):
    text = example.read_text()
    assert len(text.splitlines()) <= 150
    assert f"python examples/{example.name}" in ast.get_docstring(ast.parse(text))


def test_the_overview_names_every_example():
    named = re.findall(r"\((\w+\.py)\)", (FOLDER / "README.md").read_text())
    assert sorted(named) == [path.name for path in EXAMPLES]


def test_the_gallery_shows_every_example():
    pages = FOLDER.parent / "docs" / "gallery"
    shown = {
        name
        for page in pages.glob("*.md")
        for name in re.findall(r"literalinclude} ../../examples/(\w+).py", page.read_text())
    }
    assert shown == {example.stem for example in EXAMPLES}
    index = (pages / "index.md").read_text()
    assert all(f"({example.stem}.md)" in index for example in EXAMPLES)
