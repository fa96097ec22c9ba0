"""The model summary: Flax's own table, or a plainer one of the variables where that fails."""

import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from boltax._base._trees import tree_bytes
from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call, trace_abstractly
from boltax.models._summary_table import AS_WIDE_AS_IT_IS, fitted

WIDTH = 160


def summarize(
    adapter: ModelAdapter,
    calls: Call | Sequence[Call],
    *,
    depth: int | None = None,
    width: int | None = None,
) -> str:
    """A table of the model: its modules, their inputs, outputs and variables. Computes nothing.

    Args:
        adapter: the model.
        calls: how the model is called, as `ModelView` records it. NNX's table shows the first call
            only.
        depth: how many levels of submodules it shows; None for all.
        width: at most so many columns of text, for which columns of the table are left out; None
            for all of it.

    Returns:
        Plain text. Where Flax cannot tabulate the model, a table of its variables that says why.
    """
    calls = [calls] if isinstance(calls, Call) else list(calls)
    try:
        whole = adapter.tabulate(calls, depth=depth, console=_console(AS_WIDE_AS_IT_IS))
        text = fitted(whole, width)
        if text is None:  # a version of Flax, or an adapter, that draws it in another way
            text = adapter.tabulate(calls, depth=depth, console=_console(width or WIDTH))
        return _tidy(text)
    except Exception as error:  # noqa: BLE001 - whatever it is, a summary must not end a run
        reason = (
            f"Flax made no table of {adapter.name}: {type(error).__name__}: {_first_line(error)}"
        )
        return f"{summarize_variables(_variables(adapter, calls), width=width)}{reason}\n"


def narrowed(summary: str, width: int) -> str:
    """The whole of a summary with the columns that fit; what is no table of Flax is as it was."""
    text = fitted(summary, width)
    return summary if text is None else _tidy(text)


def summarize_variables(variables: Variables, *, width: int | None = None) -> str:
    """A table of all variables with their shapes, dtypes and sizes.

    Args:
        variables: by collection; arrays or `jax.ShapeDtypeStruct`.
        width: at most so many columns of text, where a long path breaks; None for any number.

    Returns:
        Plain text.

    Example:
        >>> kernel = jax.ShapeDtypeStruct((3, 4), "float32")
        >>> print(summarize_variables({"params": {"kernel": kernel}}), end="")
        ┏━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━┓
        ┃ path          ┃ shape  ┃ dtype   ┃      size ┃
        ┡━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━┩
        │ params/kernel │ (3, 4) │ float32 │        12 │
        ├───────────────┼────────┼─────────┼───────────┤
        │ Total         │        │         │ 12 (48 B) │
        └───────────────┴────────┴─────────┴───────────┘
        params: 12 (48 B)
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_footer=True)
    sizes = {name: (_count(value), tree_bytes(value)) for name, value in variables.items()}
    total = (sum(n for n, _ in sizes.values()), sum(b for _, b in sizes.values()))
    for title, footer in (("path", "Total"), ("shape", ""), ("dtype", ""), ("size", _size(*total))):
        table.add_column(
            title,
            footer=footer,
            justify="right" if title == "size" else "left",
            overflow="fold",
            no_wrap=title in ("dtype", "size"),
        )
    for collection, values in variables.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(values):
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            shape = ", ".join(map(str, np.shape(leaf)))
            table.add_row(f"{collection}/{place}", f"({shape})", str(leaf.dtype), f"{leaf.size:,}")
        table.add_section()
    text = io.StringIO()
    console = Console(
        file=text, highlight=False, markup=False, **_console(width or AS_WIDE_AS_IT_IS)
    )
    console.print(table)
    for name, size in sizes.items():
        console.print(f"{name}: {_size(*size)}")
    return _tidy(text.getvalue())


def _variables(adapter: ModelAdapter, calls: list[Call]) -> Variables:
    """The shapes of the model's variables."""

    def run(calls: list[Call]) -> Variables:
        key = jax.random.key(0)
        variables = adapter.empty(key)
        for args, kwargs, method in calls:
            _, variables = adapter.apply(
                variables,
                args,
                kwargs,
                train=True,
                keys=lambda _: key,
                method=method,
                initializing=True,
            )
        return variables

    return trace_abstractly(run, calls)


def _console(width: int) -> dict[str, Any]:
    plain = {"force_terminal": False, "force_jupyter": False, "no_color": True}
    return {**plain, "width": width}


def _tidy(text: str) -> str:
    """Without empty lines around it and blanks at the ends of lines."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _size(count: int, num_bytes: int) -> str:
    amount, units = float(num_bytes), ["B", "KB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    digits = 0 if units[0] == "B" else 1
    return f"{count:,} ({amount:.{digits}f} {units[0]})"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
