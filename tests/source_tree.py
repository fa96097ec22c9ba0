"""The package's source as syntax trees, for the tests of layers, sizes, words and the surface."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "boltax"


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def part(self) -> str:
        """The file or folder right under `boltax/` that holds it; empty for `boltax` itself."""
        return self.name.partition(".")[2].partition(".")[0]

    @functools.cached_property
    def definitions(self) -> set[str]:
        """The names that the module itself binds at its top level, other than by an import."""
        return set(_bound(self.tree.body))


@dataclass(frozen=True)
class Import:
    """One module named by one import statement.

    Attributes:
        target: the module that stands after `import` or `from`.
        name: what is taken from it, if anything.
        place: file and line.
        when: "import" where it runs with its module, "call" inside a function, "never" where it is
            there for annotations only.
    """

    target: str
    name: str | None
    place: str
    when: str


@functools.cache
def modules() -> dict[str, Module]:
    """Every module of boltax by its dotted name."""
    found = (_read(path) for path in sorted(PACKAGE.rglob("*.py")))
    return {module.name: module for module in found}


@functools.cache
def imports(module: Module) -> list[Import]:
    """Every import that a module makes, wherever it stands."""
    return list(_imports(module.path.relative_to(ROOT), module.tree, "import"))


def _read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(name, path, text, ast.parse(text))


def _imports(path: Path, node: ast.AST, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, None, f"{path}:{child.lineno}", when)
        elif isinstance(child, ast.ImportFrom):
            target = "." * child.level + (child.module or "")
            for alias in child.names:
                yield Import(target, alias.name, f"{path}:{child.lineno}", when)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(path, child, "never")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(path, child, "call" if when == "import" else when)
        elif not isinstance(child, ast.expr):
            yield from _imports(path, child, when)


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.If):
            yield from _bound(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _bound(node.body + [s for h in node.handlers for s in h.body] + node.orelse)
