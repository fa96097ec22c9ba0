"""Who may import whom: the list of folders, from the top of the design's page to its bottom.

A part imports parts that stand above it, and itself. What is imported for types alone counts, and
so does what a quoted annotation names. `boltax/__init__.py` imports all and is imported by none.
"""

import ast
import graphlib

from source_tree import ROOT, Import, Module, imports, modules, quoted

LAYERS: list[set[str]] = [
    {"errors"},
    {"_base"},
    {"_process"},
    {"parallel"},
    {"models"},
    {"metrics"},
    {"optim"},
    {"_step"},
    {"data", "loggers", "checkpoint", "callbacks", "_progress"},  # none imports another
    {"_runs"},
    {"_build"},
    {"_loop"},
    {"_inspect"},
    {"_export"},
    {"trainer"},
    {"tune"},
    {"testing"},
    {"demo"},
    {"_configure"},
    {"_commands"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def own_imports(module: Module) -> list[Import]:
    """The imports of boltax's own modules, the version aside, which every part may read.

    Those that never run are among them: they are there for annotations.
    """
    every = (*imports(module), *quoted(module))
    own = (i for i in every if i.target.split(".")[0] in ("", "boltax"))
    return [i for i in own if (i.target, i.name) != ("boltax", "__version__")]


def test_every_part_has_a_layer() -> None:
    homeless = {module.part for module in modules().values()} - {"", *RANK}
    assert not homeless, f"give each its place in LAYERS: {sorted(homeless)}"


def test_imports_name_only_parts_above() -> None:
    wrong = [
        f"{i.place}: {module.part} imports {part}"
        for module in modules().values()
        for i in own_imports(module)
        if module.part
        if not may_import(module.part, part := part_of(i))
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_name_the_defining_module() -> None:
    wrong = [
        f"{i.place}: {reason}"
        for name, module in modules().items()
        for i in own_imports(module)
        if (reason := misnamed(i))
        # `boltax/__init__.py` shows its packages as attributes.
        if not (name == "boltax" and " is a package" in reason)
    ]
    assert not wrong, "\n".join(wrong)


def test_package_inits_only_reexport() -> None:
    own = {
        name: module.definitions - {"__all__", "__version__"}
        for name, module in modules().items()
        if module.is_package
    }
    assert not {name: names for name, names in own.items() if names}, "give them files of their own"


def test_no_import_cycle() -> None:
    graph = {
        name: {defining(i) for i in own_imports(module)} - {name}
        for name, module in modules().items()
    }
    list(
        graphlib.TopologicalSorter(graph).static_order()
    )  # raises CycleError, which names the cycle


def test_what_annotations_name_is_seen() -> None:
    text = """
from typing import TYPE_CHECKING, Literal, cast
if TYPE_CHECKING:
    from boltax.errors import DataError
def one(run: "boltax.trainer.TrainerModule | None", error: "DataError") -> list["TrainState"]:
    mode: Literal["Metrics"]
    return cast("ResumeCheckpoints", run)
class Steps: ...
own: "Steps"
"""
    module = Module("boltax.made_up", ROOT / "boltax" / "made_up.py", text, ast.parse(text))
    assert {(i.target, i.name) for i in quoted(module)} == {
        ("boltax.trainer", "TrainerModule"),
        ("boltax._step._state", "TrainState"),
        ("boltax.checkpoint._resume_checkpoints", "ResumeCheckpoints"),
    }
    assert [(i.target, i.when) for i in imports(module)][3:] == [("boltax.errors", "never")]


def test_the_rule_tells_right_from_wrong() -> None:
    assert may_import("_loop", "data")
    assert may_import("optim", "metrics")
    assert may_import("data", "data")
    assert not may_import("data", "loggers")
    assert not may_import("optim", "trainer")
    assert not may_import("metrics", "optim")


def part_of(statement: Import) -> str:
    """The part of boltax that an import names; empty for `boltax` itself."""
    return defining(statement).partition(".")[2].partition(".")[0]


def may_import(part: str, other: str) -> bool:
    """Whether a module of `part` may import one of `other`."""
    return part == other or (part in RANK and other in RANK and RANK[other] < RANK[part])


def defining(statement: Import) -> str:
    """The module that an import runs: a submodule may be named as `from package import module`."""
    submodule = f"{statement.target}.{statement.name}"
    return submodule if submodule in modules() else statement.target


def misnamed(statement: Import) -> str | None:
    """What is wrong with the form of an import, if anything is."""
    target = modules().get(statement.target)
    if statement.target.startswith("."):
        return "a relative import; write the full name"
    if target is None:
        return f"there is no module {statement.target}"
    submodule = modules().get(defining(statement))
    if target.is_package and submodule is not None and not submodule.is_package:
        return None  # a module taken whole: `from boltax import _fit`
    if target.is_package:
        return f"{statement.target} is a package; name the module that defines {statement.name}"
    if statement.name is None or statement.name == "*":
        return f"write from {statement.target} import NAME"
    if statement.name not in target.definitions:
        return f"{statement.target} does not define {statement.name}"
    return None
