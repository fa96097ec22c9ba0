"""The table of an Equinox model: its modules with inputs, outputs and variables, in Flax's form.

Equinox has none of its own. The inputs and outputs are noted while one call is traced.
"""

import functools
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from boltax._base._trees import describe_leaf, tree_bytes
from boltax.models._calls import Call, trace_abstractly
from boltax.models._equinox_template import Slot, Template, modules_in
from boltax.models._variables_table import size_text

Path = tuple[str, ...]
Noted = dict[Path, tuple[str, str]]
"""The inputs and the outputs of modules, as text."""


def table_of(
    name: str,
    template: Template,
    run: Callable[[Call], tuple[Any, Callable[[], Any]]],
    call: Call,
    *,
    depth: int | None,
    console: Mapping[str, Any],
) -> str:
    """The table as text; computes nothing.

    Args:
        name: the model's.
        template: of the model.
        run: gives a module, and a function that calls it.
        call: with what.
        depth: how many levels of modules it shows; None for all.
        console: arguments of the `rich.console.Console` that prints it.
    """
    noted: Noted = {}
    variables = dict[Slot, Any]()

    def trace(calls: list[Call]) -> None:
        module, calling = run(calls[0])
        paths = {id(part): path for path, part in modules_in(module)}
        leaves = jax.tree.leaves(module)
        variables.update({slot: leaves[slot.leaf] for slot in template.slots})
        with _noting_calls({type(part) for _, part in modules_in(module)}, paths, noted):
            calling()

    trace_abstractly(trace, [call])
    shown = _modules(template, depth)
    collections = list(dict.fromkeys(slot.collection for slot in template.slots)) or ["params"]
    owners = {slot: _owner(slot.path, [path for path, _ in shown]) for slot in variables}
    rows = [
        [
            "/".join(path),
            type(part).__name__,
            *noted.get(path, ("", "")),
            *(_cell(variables, owners, path, collection) for collection in collections),
        ]
        for path, part in shown
    ]
    total = _size(list(variables.values()))
    sums = [_sum(variables, collection) for collection in collections]
    return _drawn(f"{name} Summary", collections, rows, sums, total, console)


def _modules(template: Template, depth: int | None) -> list[tuple[Path, Any]]:
    """The modules of a model down to a depth, but for what only says where its state is."""
    whole = template.treedef.unflatten(template.training)
    every = [
        (path, part)
        for path, part in modules_in(whole)
        if not isinstance(part, eqx.nn.StateIndex) and not type(part).__name__.startswith("_")
    ]
    paths = {path for path, _ in every}

    def level(path: Path) -> int:
        return sum(path[:n] in paths for n in range(len(path)))

    return [(path, part) for path, part in every if depth is None or level(path) <= depth]


def _owner(path: Path, shown: Sequence[Path]) -> Path:
    """The innermost module of those that are shown in which an array is."""
    return max((place for place in shown if path[: len(place)] == place), key=len)


def _cell(
    variables: Mapping[Slot, Any], owners: Mapping[Slot, Path], path: Path, collection: str
) -> str:
    own = [s for s in variables if s.collection == collection and owners[s] == path]
    if not own:
        return ""
    lines = [f"{'/'.join(slot.path[len(path) :])}: {_shape(variables[slot])}" for slot in own]
    return "\n".join([*lines, "", _size([variables[slot] for slot in own])])


def _shape(leaf: Any) -> str:
    return describe_leaf(leaf).replace(" ", "")


def _sum(variables: Mapping[Slot, Any], collection: str) -> str:
    return _size([leaf for slot, leaf in variables.items() if slot.collection == collection])


def _size(leaves: list[Any]) -> str:
    return size_text(sum(leaf.size for leaf in leaves), tree_bytes(leaves))


@contextmanager
def _noting_calls(classes: set[type], paths: Mapping[int, Path], noted: Noted) -> Generator[None]:
    """Notes what modules are called with. The classes are as they were when it ends."""
    before = {cls: vars(cls)["__call__"] for cls in classes if "__call__" in vars(cls)}

    def noting(original: Any) -> Callable[..., Any]:
        @functools.wraps(original)  # what it takes is asked of its signature
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = original.__get__(module, type(module))(*args, **kwargs)
            if id(module) in paths:
                noted.setdefault(paths[id(module)], (_shapes((args, kwargs)), _shapes(outputs)))
            return outputs

        return call

    try:
        for cls, original in before.items():
            cls.__call__ = noting(original)
        yield
    finally:
        for cls, original in before.items():
            cls.__call__ = original


def _shapes(tree: Any) -> str:
    """The arrays among inputs or outputs, without random keys and state."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, eqx.nn.State))
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    shown = [leaf for leaf in arrays if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return "\n".join(map(_shape, shown))


def _drawn(
    title: str,
    collections: Sequence[str],
    rows: Sequence[Sequence[str]],
    sums: Sequence[str],
    total: str,
    console: Mapping[str, Any],
) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_style="none", show_lines=True)
    for column in ("path", "module", "inputs", "outputs", *collections):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    table.add_row("", "", "", "Total", *sums)
    text = io.StringIO()
    console_of_text = Console(file=text, highlight=False, markup=False, **console)
    console_of_text.print(table)
    console_of_text.print(f"\nTotal Parameters: {total}")
    return text.getvalue()
