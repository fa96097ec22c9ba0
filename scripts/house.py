"""How the house stands: numbers about the structure of the package, as a table in Markdown.

    python scripts/house.py                            of this checkout
    python scripts/house.py --repo ../before --repo .  two checkouts beside each other

It reads source files only, and needs nothing but Python. What it counts:

- a *function that takes the trainer* has a parameter named `trainer`, or annotated with
  `TrainerModule`; it *takes the run as well* with one named `run`, or annotated with a `Run`
- a *circle* is a set of modules each of which reaches each other by imports: those that run with
  the module; also those inside functions; also those for types alone, under `TYPE_CHECKING` or
  named in a quoted annotation. That a package's `__init__` runs first is not counted
- `Any` is counted wherever an annotation or an alias names it, not where it is imported
- the loop and the steps are the folders `_loop` and `_step`, or the files that they grew out of
- the *population's own loop* are the files of `tune/` named after a part of the loop
- *calls to the compiled step* are the shortest way through the source from
  `TrainerModule.train_model` to the function that takes the step, `steps.train`, to call it; both
  ends counted, and the call of the step itself
- what a new model kind, a device mesh or a new hook *would touch* are the files that name a kind of
  model, ask JAX about devices and placements, or name a hook
"""

import argparse
import ast
import functools
import io
import re
import tokenize
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LOOP = {
    *("_after_training", "_before_training", "_epoch", "_evaluate", "_fit", "_nonfinite"),
    *("_notify", "_record", "_resume", "_run", "_sanity_check", "_save"),
}
STEP = {
    *("_bodies", "_ema", "_flops", "_forms", "_fused", "_initialise", "_loss", "_loss_scale"),
    *("_microbatches", "_padding", "_programs", "_state", "_steps"),
}
"""Where these files lay flat in the package, before there were folders."""
OF_A_LOOP = {
    *("_begin", "_content", "_end", "_epoch", "_evaluate", "_fit", "_loop", "_record", "_resume"),
    *("_run", "_save", "_saved", "_saving", "_stream", "_on_test_set", "_trainees", "_validate"),
}
"""Names of files that are, or stand for, a part of the loop: its order, or what it does then."""
STANDS_FOR = {
    "trainer": ("boltax.trainer", "TrainerModule"),
    "hooks": ("boltax.trainer", "TrainerModule"),
    "trainees": ("boltax._loop._single", "Single"),
}
"""The classes of what functions of the loop are handed, for a single run."""
FOR_TOOLS = re.compile(r"#\s*(noqa|type:|pyright:)")
MODEL_KINDS = re.compile(
    r"\b(LinenAdapter|NnxAdapter|EquinoxAdapter|_linen|_nnx|nnx|linen|flax\.linen)\b"
)
DEVICES = re.compile(
    r"\b(device_put|local_devices|local_device_count|default_backend|device_count|process_count"
    r"|process_index|SingleDeviceSharding|NamedSharding|default_device|jax\.devices)\b"
)
HOOKS = re.compile(
    r"\bon_(training_start|training_epoch_start|step_end|log|training_epoch_end"
    r"|validation_epoch_end|training_end|test_end|exception)\b"
)


@dataclass(frozen=True, eq=False)
class Source:
    """One file of the package; `name` is dotted, and that of a package is its folder's."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The folder or file right under the package."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def stem(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def is_at_root(self) -> bool:
        """Whether the file lies in the package's own folder."""
        depth = self.name.count(".")
        return depth == 0 or (depth == 1 and self.path.name != "__init__.py")

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.text.splitlines())

    def is_of(self, folder: str, before: set[str]) -> bool:
        """Whether it lies in a folder, or is one of the files which that grew out of."""
        return self.part == folder or (self.is_at_root and self.stem in before)


class Row(NamedTuple):
    """A line of the table: what is counted, and how."""

    name: str
    count: "Callable[[Package], str]"


@dataclass(frozen=True, eq=False)
class Package:
    """All files of a checkout's package."""

    sources: dict[str, Source]

    @classmethod
    def read(cls, repository: Path, package: str = "boltax") -> "Package":
        """Reads the package of a checkout."""
        files = sorted((repository / package).rglob("*.py"))
        if not files:
            raise SystemExit(
                f"Received --repo {repository}, which holds no {package}/*.py; expected a checkout."
            )
        found = (_read(path, repository) for path in files)
        return cls({source.name: source for source in found})

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources.values())

    def module_of(self, dotted: str) -> str | None:
        """The module that a dotted name lies in: the longest beginning of it that is one."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            if (name := ".".join(parts[:length])) in self.sources:
                return name
        return None

    @functools.cache  # noqa: B019 - a script
    def classes(self) -> dict[str, list[str]]:
        """The modules that define each class."""
        found: dict[str, list[str]] = {}
        for source in self:
            for node in source.tree.body:
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append(source.name)
        return found


def main(arguments: list[str] | None = None) -> None:
    """Prints the table of one checkout, or of several beside each other."""
    parser = argparse.ArgumentParser(description="Numbers about the structure of the package.")
    parser.add_argument("--repo", action="append", type=Path, help="a checkout; may be repeated")
    chosen = parser.parse_args(arguments).repo or [Path(__file__).resolve().parents[1]]
    print(table([Package.read(repository) for repository in chosen]))


def table(packages: list[Package]) -> str:
    """The table, and beneath it the lists of files that are too long for it."""
    columns = {1: ["now"], 2: ["before", "after"]}.get(
        len(packages), [f"checkout {number + 1}" for number in range(len(packages))]
    )
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {row.name} | {' | '.join(map(row.count, packages))} |" for row in ROWS]
    for title, files_of in LISTS.items():
        lines += ["", f"{title}:", ""]
        for column, package in zip(columns, packages, strict=True):
            files = files_of(package)
            lines.append(f"- {column}: {len(files)}: {', '.join(files) or 'none'}")
    return "\n".join(lines)


def functions(
    package: Package,
) -> Iterator[tuple[Source, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the package."""
    for source in package:
        for node in _nodes(source):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield source, node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """All parameters of a function, starred ones too."""
    given = node.args
    starred = [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]


def takes(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str | None, annotated: str) -> bool:
    """Whether a function has a parameter of a name, or annotated with a word."""
    return any(
        arg.arg == name
        or (arg.annotation is not None and re.search(annotated, ast.unparse(arg.annotation)))
        for arg in parameters(node)
    )


def taking_trainer(package: Package) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that take the whole trainer."""
    return [node for _, node in functions(package) if takes(node, "trainer", r"\bTrainerModule\b")]


def imported(package: Package, source: Source, when: str) -> set[str]:
    """The modules of the package that a module imports.

    Args:
        package: all of it.
        source: the module.
        when: "import" for what runs with the module, "call" for what functions import as well,
            "types" for what is named in annotations alone as well.
    """
    found = {
        module
        for statement, at in _imports(source)
        if _ORDER.index(at) <= _ORDER.index(when)
        for name in _named(statement)
        if (module := package.module_of(name)) is not None
    }
    if when == "types":
        found |= _quoted(package, source)
    return found - {source.name, source.name.partition(".")[0]}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of more than one node that all reach each other, largest first (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            end = stack.index(node)
            found.append(set(stack[end:]))
            del stack[end:]

    for node in graph:
        if node not in index:
            visit(node)
    return sorted((circle for circle in found if len(circle) > 1), key=len, reverse=True)


def circle(when: str) -> Callable[[Package], str]:
    """Counts the modules in the largest circle."""

    def count(package: Package) -> str:
        graph = {source.name: imported(package, source, when) for source in package}
        found = circles(graph)
        return str(len(found[0])) if found else "none"

    return count


def count_any(source: Source) -> int:
    """How often a file says `Any`, quoted annotations included."""
    names = sum(isinstance(n, ast.Name) and n.id == "Any" for n in _nodes(source))
    return names + sum(len(re.findall(r"\bAny\b", text)) for text in _strings(source))


def any_per_1000(folder: str | None, before: set[str]) -> Callable[[Package], str]:
    """Counts `Any` in 1,000 lines: of the whole package, or of one folder."""

    def count(package: Package) -> str:
        chosen = [s for s in package if folder is None or s.is_of(folder, before)]
        return _per_1000(sum(map(count_any, chosen)), sum(s.lines for s in chosen))

    return count


def comments_and_code(source: Source) -> tuple[int, int]:
    """Lines that have a comment, and lines that have code: no docstring, comment or blank."""
    docstrings = {
        line
        for node in _nodes(source)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    comments, code = set[int](), set[int]()
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and not FOR_TOOLS.match(token.string):
            comments.add(token.start[0])
        elif token.type not in layout | {tokenize.COMMENT}:
            code |= set(range(token.start[0], token.end[0] + 1)) - docstrings
    return len(comments), len(code)


def comments_of_the_loop(package: Package) -> str:
    """Counts lines with a comment in 1,000 lines of the loop's code."""
    counts = [comments_and_code(source) for source in package if source.is_of("_loop", LOOP)]
    return _per_1000(sum(c for c, _ in counts), sum(code for _, code in counts))


def population_loop(package: Package) -> list[Source]:
    """The files with which a population has a loop of its own."""
    return [s for s in package if s.part == "tune" and s.stem in OF_A_LOOP]


def calls(package: Package) -> list[str]:
    """The functions on the shortest way from `train_model` to the compiled step, with both ends."""
    start = ("boltax.trainer", "TrainerModule.train_model")
    table_of = {source.name: _defined(source.tree) for source in package}
    if start[0] not in table_of or start[1] not in table_of[start[0]]:
        return []
    queue = deque([[start]])
    seen = {start}
    while queue:
        way = queue.popleft()
        module, name = way[-1]
        if (step := _step_taken(table_of[module][name])) is not None:
            return [*(called for _, called in way), step]
        for call in ast.walk(table_of[module][name]):
            if not isinstance(call, ast.Call):
                continue
            following = _called(package, table_of, module, name, ast.unparse(call.func))
            if following is not None and following not in seen:
                seen.add(following)
                queue.append([*way, following])
    return []


def touching(pattern: re.Pattern[str], *without: str) -> Callable[[Package], list[str]]:
    """Lists the files whose code, docstrings and comments aside, matches a pattern.

    Args:
        pattern: what is looked for.
        *without: parts of the package that are not asked.
    """

    def files(package: Package) -> list[str]:
        return [
            source.name.partition(".")[2].replace(".", "/")
            for source in package
            if source.part not in without and pattern.search(_code(source))
        ]

    return files


def _read(path: Path, repository: Path) -> Source:
    parts = path.relative_to(repository).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Source(name, path, text, ast.parse(text))


_ORDER = ["import", "call", "types"]


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _statements(child, "types")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(child, "call" if when == "import" else when)
        elif not isinstance(child, ast.expr):
            yield from _statements(child, when)


@functools.cache
def _imports(source: Source) -> list[tuple[ast.Import | ast.ImportFrom, str]]:
    """The import statements of a file, and when they run."""
    return list(_statements(source.tree, "import"))


def _named(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    return [f"{statement.module}.{alias.name}" for alias in statement.names]


@functools.cache
def _nodes(source: Source) -> list[ast.AST]:
    return list(ast.walk(source.tree))


def _strings(source: Source) -> Iterator[str]:
    """The text of every annotation that is quoted, or has a quoted part."""
    for node in _nodes(source):
        annotation = None
        if isinstance(node, ast.arg | ast.AnnAssign):
            annotation = node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            annotation = node.returns
        for part in _parts(annotation) if annotation is not None else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what stands in a `Literal`: that is no name."""
    yield node
    if not (isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal")):
        for child in ast.iter_child_nodes(node):
            yield from _parts(child)


def _quoted(package: Package, source: Source) -> set[str]:
    """The modules that quoted annotations name: by a full name, or by a class that is nowhere else.

    Those that an import brings are counted with the import.
    """
    bound = {
        (alias.asname or alias.name).split(".")[0]
        for statement, _ in _imports(source)
        for alias in statement.names
    }
    bound |= {getattr(node, "name", "") for node in source.tree.body}
    found = set[str]()
    for text in _strings(source):
        for name in re.findall(r"[A-Za-z_][\w.]*", text):
            if name.split(".")[0] in bound:
                continue
            if "." in name and (module := package.module_of(name)):
                found.add(module)
            elif len(modules := package.classes().get(name, [])) == 1:
                found.add(modules[0])
    return found


def _per_1000(count: int, lines: int) -> str:
    return f"{1000 * count / lines:.1f}" if lines else "-"


def _defined(tree: ast.Module) -> dict[str, ast.AST]:
    """Functions by their names, methods with that of their class before it."""
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = (child for child in node.body if isinstance(child, ast.FunctionDef))
            found |= {f"{node.name}.{method.name}": method for method in methods}
    return found


def _step_taken(function: ast.AST) -> str | None:
    """The training step that a function calls, by itself or by a name that it gives it."""
    for node in ast.walk(function):
        taken: list[ast.expr] = []
        if isinstance(node, ast.Call):
            taken = [node.func]
        elif isinstance(node, ast.Assign):
            taken = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for text in map(ast.unparse, taken):
            if re.search(r"(^|\.)steps(_of\(\w*\))?\.train$", text):
                return text
    return None


def _called(
    package: Package, table_of: dict[str, dict[str, ast.AST]], module: str, name: str, text: str
) -> tuple[str, str] | None:
    """Where a call leads, as far as names tell."""
    owner, _, function = text.rpartition(".")
    if (known := STANDS_FOR.get(owner.rpartition(".")[2])) is not None:
        method = f"{known[1]}.{function}"
        return (known[0], method) if method in table_of.get(known[0], {}) else None
    if owner == "self":
        own = f"{name.partition('.')[0]}.{function}"
        return (module, own) if own in table_of[module] else None
    if not owner and function in table_of[module]:
        return module, function
    for statement, _ in _imports(package.sources[module]):
        for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
            target = f"{statement.module}.{alias.name}"
            is_it = (alias.asname or alias.name) == (owner or function)
            if is_it and owner and function in table_of.get(target, {}):
                return target, function
            if is_it and not owner and alias.name in table_of.get(statement.module or "", {}):
                return statement.module or "", alias.name
    return None


@functools.cache
def _code(source: Source) -> str:
    """A file without its comments and docstrings."""
    tree = ast.parse(source.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_text = isinstance(node.body[0], ast.Expr) if node.body else False
            if is_text and isinstance(node.body[0].value, ast.Constant):
                node.body[0] = ast.Pass()
    return ast.unparse(tree)


ROWS = [
    Row("files at the package's root", lambda p: str(sum(s.is_at_root for s in p))),
    Row("functions that take the trainer", lambda p: str(len(taking_trainer(p)))),
    Row(
        "... and the run as well",
        lambda p: str(sum(takes(n, "run", r"\b\w*Run\b") for n in taking_trainer(p))),
    ),
    Row(
        "functions that take `Hooks`",
        lambda p: str(sum(takes(n, None, r"\bHooks\b") for _, n in functions(p))),
    ),
    Row("modules in the largest circle of imports", circle("import")),
    Row("... imports inside functions counted too", circle("call")),
    Row("... types counted too", circle("types")),
    Row("`Any` in 1,000 lines", any_per_1000(None, set())),
    Row("... of the loop", any_per_1000("_loop", LOOP)),
    Row("... of the steps", any_per_1000("_step", STEP)),
    Row("lines with a comment in 1,000 lines of the loop's code", comments_of_the_loop),
    Row(
        "lines of the population's own loop",
        lambda p: str(sum(source.lines for source in population_loop(p))),
    ),
    Row("calls from `train_model` to the compiled step", lambda p: str(len(calls(p)) or "-")),
    Row("files that name a kind of model", lambda p: str(len(touching(MODEL_KINDS, "demo")(p)))),
    Row("files that ask about devices", lambda p: str(len(touching(DEVICES, "demo")(p)))),
    Row("files that name a hook", lambda p: str(len(touching(HOOKS, "demo")(p)))),
]
LISTS: dict[str, Callable[[Package], list[str]]] = {
    "The calls": calls,
    "The population's own loop": lambda p: [s.stem for s in population_loop(p)],
    "A new kind of model would touch some of": touching(MODEL_KINDS, "demo"),
    "A device mesh would touch some of": touching(DEVICES, "demo"),
    "A new hook would touch some of": touching(HOOKS, "demo"),
}

if __name__ == "__main__":
    main()
