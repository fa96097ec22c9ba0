"""The code of the README and of the guides runs, in order, as one program for each page."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import boltax
from warm_python import FOR_TRAINING, QUICK_TO_COMPILE, WarmPython

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "index.md", *sorted((DOCS / "guides").glob("*.md"))]


def program(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


def packages(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.fixture(scope="module")
def python():
    warm = WarmPython(FOR_TRAINING, KERAS_BACKEND="jax", **QUICK_TO_COMPILE)
    yield warm
    warm.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_as_typed(page, python, tmp_path):
    code = program(page)
    assert code, f"{page.name} has no Python"
    for package in packages(code):
        pytest.importorskip(package.partition(".")[0])
    script = tmp_path / "page.py"
    script.write_text(code)
    done = python.run(script, folder=tmp_path)
    assert done.returncode == 0, done.output


def test_the_settings_page_names_every_environment_variable_of_boltax():
    names = {
        name
        for path in (ROOT / "boltax").rglob("*.py")
        for name in re.findall(r"BOLTAX_[A-Z]+(?:_[A-Z]+)*", path.read_text())
    }
    page = (DOCS / "settings.md").read_text()
    assert names == set(re.findall(r"BOLTAX_[A-Z]+(?:_[A-Z]+)*", page))


@pytest.mark.parametrize("page", ["settings", "troubleshooting"])
def test_options_that_a_page_without_programs_shows_exist(page):
    calls = re.findall(r"`(\w+Options)\(([^`]*)\)`", (DOCS / f"{page}.md").read_text())
    assert calls
    for options, arguments in calls:
        fields = {field.name for field in dataclasses.fields(getattr(boltax, options))}
        assert set(re.findall(r"(\w+)=", arguments)) <= fields
