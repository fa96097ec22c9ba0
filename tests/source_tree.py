"""The package's source as syntax trees, for the tests of layers, sizes, words and the surface."""

import ast
import functools
import re
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


@functools.cache
def quoted(module: Module) -> list[Import]:
    """What quoted annotations name without an import: as if it were imported for them.

    A full name, such as "boltax.trainer.TrainerModule", or that of a class which one module of the
    package defines and this one neither imports nor defines.
    """
    taken = (i.name or i.target.partition(".")[0] for i in imports(module))
    bound = {*taken, *module.definitions}
    return [
        found
        for text, line in _quotations(module.tree)
        for name in re.findall(r"[A-Za-z_][\w.]*", text)
        if name.partition(".")[0] not in bound
        if (found := _as_import(name, f"{module.path.relative_to(ROOT)}:{line}"))
    ]


def _quotations(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The text of each annotation, or part of one, that is quoted, and of each quoted `cast`."""
    for node in ast.walk(tree):
        types: list[ast.expr | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            types = [node.annotation]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            types = [node.returns]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "typing.cast"):
            types = node.args[:1]
        for part in (part for type_ in types if type_ is not None for part in _parts(type_)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value, part.lineno


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what stands in a `Literal`: that is no name."""
    yield node
    if not (isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal")):
        for child in ast.iter_child_nodes(node):
            yield from _parts(child)


def _as_import(name: str, place: str) -> Import | None:
    target, _, last = name.rpartition(".")
    if target in modules():
        return Import(target, last, place, "never")
    defining = [m.name for m in modules().values() if not m.is_package and name in _classes(m)]
    return Import(defining[0], name, place, "never") if len(defining) == 1 else None


@functools.cache
def _classes(module: Module) -> set[str]:
    return {node.name for node in module.tree.body if isinstance(node, ast.ClassDef)}


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
