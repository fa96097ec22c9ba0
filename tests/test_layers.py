"""Who may import whom, as a table from the top of the design's page to its bottom.

A part imports parts of the layers above its own, and of its own layer where that is marked; it may
name any type in an annotation. `boltax/__init__.py` imports all and is imported by none.
"""

import graphlib

from source_tree import Import, Module, imports, modules

LAYERS: list[tuple[str, bool, set[str]]] = [
    (
        "BASE",
        True,
        {
            "_types",
            "errors",
            "_trees",
            "_optional",
            "_options",
            "_ledger",
            "_allocator",
            "_compilation_cache",
            "_flops",
            "_user_cache",
        },
    ),
    (
        "PURE",
        True,
        {
            "_state",
            "_ema",
            "_loss_scale",
            "_keys",
            "_triggers",
            "_monitor",
            "metrics",
            "optim",
            "models",
        },
    ),
    (
        "CORE",
        True,
        {
            "_bodies",
            "_chunks",
            "_forms",
            "_programs",
            "_fused",
            "_padding",
            "_microbatches",
            "_loss",
            "_steps",
            "_initialise",
        },
    ),
    ("HOST", False, {"data", "loggers", "checkpoint", "_progress", "callbacks"}),
    (
        "LOOP",
        True,
        {
            "_arguments",
            "_setup",
            "_signals",
            "_run",
            "_save",
            "_resume",
            "_nonfinite",
            "_notify",
            "_evaluate",
            "_sanity_check",
            "_record",
            "_epoch",
            "_before_training",
            "_after_training",
            "_preflight",
            "_preflight_text",
            "_batch_size",
            "_lr_find",
            "_fit",
        },
    ),
    ("TRAINER", True, {"trainer"}),
    ("TUNE", True, {"tune"}),
    (
        "USER",
        True,
        {
            "demo",
            "testing",
            "_replay",
            "_tune_command",
            "_user_files",
            "_preflight_file",
            "cli",
        },
    ),
]
RANK = {part: rank for rank, (_, _, parts) in enumerate(LAYERS) for part in parts}


def own_imports(module: Module) -> list[Import]:
    """The imports of boltax's own modules, the version aside, which every part may read."""
    own = (i for i in imports(module) if i.target.split(".")[0] in ("", "boltax"))
    return [i for i in own if (i.target, i.name) != ("boltax", "__version__")]


def test_every_part_has_a_layer() -> None:
    homeless = {module.part for module in modules().values()} - {"", *RANK}
    assert not homeless, f"give each its place in LAYERS: {sorted(homeless)}"


def test_imports_name_only_parts_above() -> None:
    wrong = [
        f"{i.place}: {module.part} ({layer_of(module.part)}) imports {part} ({layer_of(part)})"
        for module in modules().values()
        for i in own_imports(module)
        if module.part and i.when != "never"
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
        name: {defining(i) for i in own_imports(module) if i.when == "import"} - {name}
        for name, module in modules().items()
    }
    list(
        graphlib.TopologicalSorter(graph).static_order()
    )  # raises CycleError, which names the cycle


def test_the_rule_tells_right_from_wrong() -> None:
    assert may_import("_fit", "data")
    assert may_import("optim", "metrics")
    assert may_import("data", "data")
    assert not may_import("data", "loggers")
    assert not may_import("optim", "trainer")


def layer_of(part: str) -> str:
    return LAYERS[RANK[part]][0] if part in RANK else "no layer"


def part_of(statement: Import) -> str:
    """The part of boltax that an import names; empty for `boltax` itself."""
    return defining(statement).partition(".")[2].partition(".")[0]


def may_import(part: str, other: str) -> bool:
    """Whether a module of `part` may import one of `other`."""
    if part == other:
        return True
    if part not in RANK or other not in RANK:
        return False
    same_layer_allowed = LAYERS[RANK[part]][1]
    return RANK[other] < RANK[part] or (RANK[other] == RANK[part] and same_layer_allowed)


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
