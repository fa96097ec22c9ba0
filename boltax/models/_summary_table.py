"""Flax's table of a model, read from its text and drawn again with the columns that fit.

Flax cuts words where there is little room. Here columns are left out: what a module is given, the
single arrays of its variables, of which the count stays, and then what it returns.
"""

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

PATH, MODULE, INPUTS, OUTPUTS = range(4)
"""The columns of Flax; behind them stand those of the variables."""
COUNT = re.compile(r"[\d,]+ \([\d.]+ [KMGT]?B\)")
AS_WIDE_AS_IT_IS = 10_000


class Layout(NamedTuple):
    """How much of a table is shown.

    Attributes:
        without: columns that are left out.
        is_brief: whether variables are shown by their count alone.
        is_tree: whether a path begins behind that of the module around it.
    """

    without: Sequence[int] = ()
    is_brief: bool = False
    is_tree: bool = False


LAYOUTS = (
    Layout(),
    Layout([INPUTS]),
    Layout([INPUTS], is_brief=True),
    Layout([INPUTS], is_brief=True, is_tree=True),
    Layout([INPUTS, OUTPUTS], is_brief=True),
    Layout([INPUTS, OUTPUTS], is_brief=True, is_tree=True),
    Layout([MODULE, INPUTS, OUTPUTS], is_brief=True, is_tree=True),
)
"""The first that fits is taken; the last has what is longer than a line broken."""


class Table(NamedTuple):
    """A table of Flax: what stands above it, its columns, modules and sums, and what is below."""

    title: str
    columns: list[str]
    modules: list[list[str]]
    sums: list[str]
    end: list[str]


def fitted(text: str, width: int | None) -> str | None:
    """The table with the columns that fit.

    Args:
        text: what Flax printed, with room for every cell; or the whole table as it is drawn here.
        width: at most so many columns of text; None for all that there is.

    Returns:
        Plain text; None where the text holds no table of that form.
    """
    table = read_table(text)
    if table is None:
        return None
    for layout in LAYOUTS if width is not None else LAYOUTS[:1]:
        drawn = _drawn(table, layout, AS_WIDE_AS_IT_IS)
        if width is None or max(map(len, drawn.splitlines())) <= width:
            return drawn
    return _drawn(table, LAYOUTS[-1], width or AS_WIDE_AS_IT_IS)


def read_table(text: str) -> Table | None:
    """The cells of a table; None for a text that has another form."""
    lines = [line.strip() for line in text.strip("\n").splitlines()]
    places = {line[:1]: number for number, line in enumerate(lines)}
    if not {"┏", "└"} <= set(places):
        return None
    rows, is_new = list[list[str]](), True
    for line in lines[places["┏"] + 1 : places["└"]]:
        if line[0] in "┃│":
            cells = [cell.strip() for cell in line[1:-1].split(line[0])]
            if rows and len(cells) != len(rows[0]):
                return None
            rows = [*rows, cells] if is_new else [*rows[:-1], _joined(rows[-1], cells)]
        is_new = line[0] not in "┃│"
    rows = [[cell.strip("\n") for cell in row] for row in rows]
    if len(rows) < 2 or rows[0][INPUTS : OUTPUTS + 1] != ["inputs", "outputs"]:
        return None
    rows = [[row[n] for n in _order(rows[0])] for row in rows]
    above, below = lines[: places["┏"]], lines[places["└"] + 1 :]
    return Table(" ".join(above), rows[0], rows[1:-1], rows[-1], [line for line in below if line])


def _order(columns: list[str]) -> list[int]:
    """The parameters before other variables; Flax has them in another order in each process."""
    kinds = list(range(OUTPUTS + 1, len(columns)))
    kinds.sort(key=lambda n: (columns[n] not in ("params", "Param"), columns[n]))
    return [PATH, MODULE, INPUTS, OUTPUTS, *kinds]


def _joined(row: list[str], cells: list[str]) -> list[str]:
    pairs = zip(row, cells, strict=True)
    return [f"{above}\n{below}" for above, below in pairs]


def _drawn(table: Table, layout: Layout, width: int) -> str:
    from rich.console import Console
    from rich.table import Table as Drawing

    shown = [n for n in range(len(table.columns)) if n not in layout.without]
    paths = [module[PATH] for module in table.modules]
    rows: list[list[str]] = []
    for number, module in enumerate(table.modules):
        path = _in_tree(paths[: number + 1]) if layout.is_tree else module[PATH]
        variables = module[OUTPUTS + 1 :]
        counts = map(_count, variables) if layout.is_brief else variables
        cells = [path, *module[MODULE : OUTPUTS + 1], *counts]
        rows.append([cells[n] for n in shown])
    has_lines = not layout.is_brief or any("\n" in cell for row in rows for cell in row)
    drawing = Drawing(title=table.title, title_style="none", show_lines=has_lines)
    for n in shown:
        drawing.add_column(table.columns[n], overflow="fold")
    for number, row in enumerate(rows):
        drawing.add_row(*row, end_section=number == len(rows) - 1)
    sums = [cell if n > OUTPUTS else "" for n, cell in enumerate(table.sums)]
    drawing.add_row(*(["Total", *sums[1:]][n] for n in shown))
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=False,
        force_jupyter=False,
        no_color=True,
        highlight=False,
        markup=False,
    )
    console.print(drawing)
    for line in table.end:
        console.print(line)
    return file.getvalue()


def _count(cell: str) -> str:
    """The count and size of variables, without their names."""
    last = cell.rpartition("\n")[2]
    return last if COUNT.fullmatch(last) else cell


def _in_tree(paths: Sequence[str]) -> str:
    """The last of some paths, of which those before it need not be repeated.

    Example:
        >>> _in_tree(["", "Block_0", "Block_0/Dense_0"])
        '  Dense_0'
    """
    *before, path = paths
    around = [other for other in before if other and path.startswith(f"{other}/")]
    nearest = max(around, key=len, default="")
    return "  " * len(set(around)) + path.removeprefix(f"{nearest}/" if nearest else "")
