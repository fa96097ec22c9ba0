"""How long files and functions are, by the numbers of the house style."""

import ast
import statistics
from collections.abc import Iterator

from source_tree import modules


def test_files_are_short() -> None:
    lengths = {name: len(module.text.splitlines()) for name, module in modules().items()}
    too_long = {name: length for name, length in lengths.items() if length > 600}
    written = [length for name, length in lengths.items() if not modules()[name].is_package]
    assert not too_long
    assert statistics.median(written) < 200


def test_functions_are_short() -> None:
    lengths = dict(code_lengths())
    ranked = sorted(lengths, key=lengths.get, reverse=True)
    longest = {name: lengths[name] for name in ranked[:10]}
    assert statistics.median(lengths.values()) < 12, longest
    assert statistics.quantiles(lengths.values(), n=20)[-1] < 50, longest


def code_lengths() -> Iterator[tuple[str, int]]:
    """Every function of the package with its lines, the docstring not counted."""
    for name, module in modules().items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}:{node.lineno}", span(node) - docstring_length(node)


def span(node: ast.stmt | ast.expr) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def docstring_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return span(node.body[0]) if ast.get_docstring(node) is not None else 0
