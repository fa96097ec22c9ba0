"""A table of a model's variables, whatever the library: their paths, shapes, dtypes and sizes."""

import io
from typing import Any

import jax
import numpy as np

from boltax._base._trees import path_text, tree_bytes
from boltax._base._types import Variables
from boltax.models._summary_table import AS_WIDE_AS_IT_IS


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
    for title, footer in (
        ("path", "Total"),
        ("shape", ""),
        ("dtype", ""),
        ("size", size_text(*total)),
    ):
        table.add_column(
            title,
            footer=footer,
            justify="right" if title == "size" else "left",
            overflow="fold",
            no_wrap=title in ("dtype", "size"),
        )
    for collection, values in variables.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(values):
            shape = ", ".join(map(str, np.shape(leaf)))
            table.add_row(
                f"{collection}/{path_text(path)}", f"({shape})", str(leaf.dtype), f"{leaf.size:,}"
            )
        table.add_section()
    text = io.StringIO()
    console = Console(
        file=text, highlight=False, markup=False, **plain_console(width or AS_WIDE_AS_IT_IS)
    )
    console.print(table)
    for name, size in sizes.items():
        console.print(f"{name}: {size_text(*size)}")
    return tidy(text.getvalue())


def plain_console(width: int) -> dict[str, Any]:
    """Arguments of a `rich.console.Console` that prints plain text of a width."""
    plain = {"force_terminal": False, "force_jupyter": False, "no_color": True}
    return {**plain, "width": width}


def tidy(text: str) -> str:
    """Without empty lines around it and blanks at the ends of lines."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def size_text(count: int, num_bytes: int) -> str:
    """A number of values and their bytes: ``12 (48 B)``."""
    amount, units = float(num_bytes), ["B", "KB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    digits = 0 if units[0] == "B" else 1
    return f"{count:,} ({amount:.{digits}f} {units[0]})"
