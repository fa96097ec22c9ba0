"""A member of a population as the tables of its population have it.

runs/MLP/version_0/
epochs.csv       a row for each member and epoch
members.csv      a row for each member, with its status
members/007/     its folder, with its arguments and its best model
"""

import csv
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def is_member(folder: Path) -> bool:
    """Whether a folder is that of a member."""
    return folder.parent.name == "members" and folder.name.isdecimal()


def rows_of_member(folder: Path, table: str) -> tuple[Row, ...]:
    """The rows of a member in a table of its population: ``epochs.csv``, ``members.csv``."""
    path, number = folder.parent.parent / table, str(int(folder.name))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("member") == number]
    except (OSError, ValueError, csv.Error):
        return ()
    return tuple(
        {name: _value(text) for name, text in row.items() if name and text} for row in rows
    )


def _value(text: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, TypeError):
            continue
    return text
