"""The public names: sorted, importable, documented, and no module is public by accident."""

import ast
import importlib
import inspect
import re
from types import ModuleType

import pytest

from source_tree import ROOT, modules

PUBLIC_MODULES = {"boltax.cli", "boltax.data.augment", "boltax.errors", "boltax.trainer"}
PACKAGES = [name for name, module in modules().items() if module.is_package and "._" not in name]
# Packages that are a program, not an interface: no page of their own.
WITHOUT_PAGE = {"boltax.demo"}
API = ROOT / "docs" / "api"
DOCUMENTED = re.compile(
    r"^\.\. (?:auto(?:class|exception|function)|py:data):: (boltax[\w.]*)\.(\w+)$", re.MULTILINE
)
EACH_PACKAGE = pytest.mark.parametrize("package", PACKAGES)
EACH_PAGE = pytest.mark.parametrize(
    "package",
    [
        name
        for name in [*PACKAGES, "boltax.data.augment", "boltax.errors"]
        if name not in WITHOUT_PAGE
    ],
)


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or the classes that a module without it defines."""
    defined = {
        n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
    }
    classes = sorted(name for name in defined if inspect.isclass(getattr(module, name)))
    return getattr(module, "__all__", classes)


def kind_and_name(name: str) -> tuple[bool, bool, str]:
    """The order of `__all__`: constants, classes, and the rest, each by the alphabet."""
    return not name.isupper(), not name[0].isupper(), name


def documented_names(package: str) -> set[str]:
    page = API / f"{package}.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return {name for owner, name in DOCUMENTED.findall(text) if owner == package}


@EACH_PACKAGE
def test_all_is_sorted_and_importable(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(set(module.__all__), key=kind_and_name)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


@EACH_PACKAGE
def test_package_exports_all_that_it_imports(package: str) -> None:
    tree = modules()[package].tree
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not (alias.asname or "").startswith("_")
    }
    assert imported <= {*importlib.import_module(package).__all__, "__version__"}


@EACH_PAGE
def test_api_page_shows_exactly_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    public = {n for n in public_names(module) if not inspect.ismodule(getattr(module, n))}
    documented = documented_names(package)
    lacking = [f".. autoclass:: {package}.{name}" for name in sorted(public - documented)]
    surplus = sorted(documented - public)
    assert not lacking, f"docs/api/{package}.md lacks:\n" + "\n".join(lacking)
    assert not surplus, f"docs/api/{package}.md shows names that are not public: {surplus}"


@EACH_PACKAGE
def test_every_public_name_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    named = {name: getattr(module, name) for name in public_names(module)}
    silent = [
        name
        for name, value in named.items()
        if (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value))
        and not (value.__doc__ or "").strip()
    ]
    assert not silent


@EACH_PACKAGE
def test_every_public_class_documents_its_methods(package: str) -> None:
    module = importlib.import_module(package)
    classes = [c for c in map(module.__dict__.get, public_names(module)) if inspect.isclass(c)]
    silent = [
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, value in vars(cls).items()
        if not name.startswith("_") and inspect.isfunction(value) and not inspect.getdoc(value)
    ]
    assert not silent


def test_modules_are_private_unless_listed() -> None:
    public = {
        name
        for name, module in modules().items()
        if not module.is_package and not name.rpartition(".")[2].startswith("_")
    }
    assert public <= PUBLIC_MODULES, f"name it _{{name}}.py: {sorted(public - PUBLIC_MODULES)}"


def test_no_module_is_called_utils() -> None:
    vague = re.compile(r"util|helper|misc|common", re.IGNORECASE)
    assert not [name for name in modules() if vague.search(name)]
