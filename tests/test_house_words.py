"""Words that the house style keeps out: in names, in comments that promise work, and in paths."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from source_tree import ROOT, Module, modules

FORBIDDEN_IN_NAMES = re.compile(r"manager|engine|handler|runner|connector", re.IGNORECASE)
TODO_WITHOUT_ISSUE = re.compile(r"\b(?:TODO|FIXME|XXX)\b(?!\(#\d+\))")
# Folders and hosts of one machine: a file that names them works on that machine only.
MACHINE = re.compile(
    r"/(?:home|root|work|opt)/\w|/tmp/\w+/|\b(?:pypi|npmjs|pythonhosted)\.(?:org|com)\b"
)
SKIPPED_FOLDERS = {"__pycache__", "_build", "build", "dist", "fixtures", "runs", "mlruns", "wandb"}
TEXT = {"", ".cfg", ".css", ".html", ".ini", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}


def text_files() -> Iterator[Path]:
    """Every file of the project that a person wrote."""
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in SKIPPED_FOLDERS and (name == ".ci" or not name.startswith("."))
        )
        own = (name for name in sorted(names) if name != ".git")  # in a worktree, where it belongs
        yield from (Path(folder, name) for name in own if Path(name).suffix in TEXT)


def defined_names(module: Module) -> set[str]:
    """Every class and function that a module defines, at any depth."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(module.tree) if isinstance(node, kinds)}


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern occurs, other than in this file."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_names_are_house_words() -> None:
    wrong = [
        f"{module_name}: {name}"
        for module_name, module in modules().items()
        for name in {module_name.rpartition(".")[2], *defined_names(module)}
        if FORBIDDEN_IN_NAMES.search(name)
    ]
    assert not wrong, "docs/glossary.md has the words that are used:\n" + "\n".join(wrong)


def test_every_todo_names_its_issue() -> None:
    found = lines_matching(TODO_WITHOUT_ISSUE)
    assert not found, "write TODO(#12), with the number of the issue:\n" + "\n".join(found)


def test_no_file_names_a_folder_or_host_of_one_machine() -> None:
    found = lines_matching(MACHINE)
    assert not found, "\n".join(found)


def test_every_file_of_the_package_says_what_it_is_for() -> None:
    silent = [name for name, module in modules().items() if not ast.get_docstring(module.tree)]
    assert not silent
