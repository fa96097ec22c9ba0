"""A CSV file that grows by rows and, now and then, by columns, and survives being killed.

Rows have a key (a step, an epoch). A row is one appended line, or takes the place of the last one
when that has the same key. Only a new column writes the file anew, beside the old one and then in
its place. A row that belongs further up, as after a resume, is appended too: `settle` brings all
rows in order and merges those with the same key, and so does reading them.
"""

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from boltax.errors import RunDirectoryError
from boltax.loggers._files import replace_file
from boltax.loggers._values import scalar

Cells: TypeAlias = dict[str, str]
Value: TypeAlias = int | float | str

_WHOLE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class _Tail:
    """What must be known of the file in order to append to it."""

    columns: list[str]
    last: Cells
    highest: float  # the greatest key so far
    start: int  # byte at which the last line starts
    end: int  # bytes in the file
    is_settled: bool  # whether the rows are in order, and no two have the same key


class Table:
    """Rows in a CSV file, one for each value of a key column.

    Args:
        path: the file; made at the first row, together with its folder.
        key: the column that tells rows apart and comes first.
    """

    def __init__(self, path: str, key: str) -> None:
        self.path = path
        self.key = key
        self._tail: _Tail | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, or adds its values to the row that has the same key.

        Args:
            row: numbers and text by column; other values are left out. Without the key, the row
                always becomes one of its own.

        Raises:
            RunDirectoryError: when the file is not one of these tables.
        """
        cells = _row_of_text(row)
        tail = self._current_tail()
        if tail is None or not cells.keys() <= set(tail.columns):
            self._rewrite([*self._read(), cells])
        elif self.key in cells and cells[self.key] == tail.last.get(self.key):
            self._put(tail, tail.last | cells, tail.start)
        else:
            self._put(tail, cells, tail.end)

    def settle(self) -> None:
        """Brings rows that came late to their places."""
        if self._tail is not None and not self._tail.is_settled:
            self._rewrite(self._read())

    def rows(self) -> list[dict[str, Value]]:
        """All rows; numbers as they were given, bit for bit, and without the empty cells.

        Raises:
            RunDirectoryError: when the file is not one of these tables.
        """
        rows = self._merge(self._read())
        return [{name: _value(text) for name, text in row.items()} for row in rows]

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Has the file hold these rows and no others; with none it is removed."""
        self._hold([_row_of_text(row) for row in rows])

    def drop_after(self, last: float) -> None:
        """Removes every row whose key is greater than `last`, and those without one behind it."""
        rows = self._read()
        marks = self._marks(rows)
        self._hold([row for row, mark in zip(rows, marks, strict=True) if mark <= last])

    def _hold(self, rows: list[Cells]) -> None:
        if rows:
            self._rewrite(rows)
        elif os.path.exists(self.path):  # as before the first row
            os.remove(self.path)

    def _current_tail(self) -> _Tail | None:
        """The tail of the file as it is now: it may have been removed, or written by another."""
        size = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        if not size:
            self._tail = None
        elif self._tail is None or self._tail.end != size:
            self._rewrite(self._read())
        return self._tail

    def _put(self, tail: _Tail, cells: Cells, start: int) -> None:
        """Writes one line at the end, or over the last line, in a single write."""
        line = _lines([[cells.get(name, "") for name in tail.columns]])
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(start)
            file.write(line)
            if start < tail.end:
                file.truncate()
        mark = float(cells.get(self.key, math.inf))
        in_order = start < tail.end or mark > tail.highest
        highest = tail.highest if mark == math.inf else max(tail.highest, mark)
        settled = tail.is_settled and in_order
        self._tail = _Tail(tail.columns, cells, highest, start, start + len(line), settled)

    def _read(self) -> list[Cells]:
        """The rows as text. A last line without its end was cut off by a kill, and is dropped."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as file:
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1].decode(errors="replace")
        lines = list(csv.reader(io.StringIO(whole, newline="")))
        if lines and lines[0][:1] != [self.key]:
            raise RunDirectoryError(
                f"Received {self.path!r}, whose first column is {lines[0][:1]}; expected a table "
                f"that starts with the column {self.key!r}. Move the file away, or choose another "
                "log folder."
            )
        return [_cells(lines[0], line) for line in lines[1:] if line]

    def _rewrite(self, rows: Iterable[Cells]) -> None:
        """Merges and orders rows, and puts the file that holds them in place of the old one."""
        merged = self._merge(rows)
        columns = list(dict.fromkeys([self.key, *(name for row in merged for name in row)]))
        head = _lines([columns])
        body = [_lines([[row.get(name, "") for name in columns]]) for row in merged]
        data = head + b"".join(body)
        replace_file(self.path, data)
        highest = max(
            (float(row[self.key]) for row in merged if self.key in row), default=-math.inf
        )
        last, length = (merged[-1], len(body[-1])) if merged else ({}, 0)
        self._tail = _Tail(columns, last, highest, len(data) - length, len(data), True)

    def _merge(self, rows: Iterable[Cells]) -> list[Cells]:
        merged: list[Cells] = []
        places: dict[str, Cells] = {}
        for row in rows:
            known = places.get(row.get(self.key, ""))
            if known is not None:
                known.update(row)
                continue
            merged.append(dict(row))
            if self.key in row:
                places[row[self.key]] = merged[-1]
        return self._sorted(merged)

    def _sorted(self, rows: list[Cells]) -> list[Cells]:
        """In the order of the key; a row without one stays behind the row that it followed."""
        marks = self._marks(rows)
        order = sorted(range(len(rows)), key=marks.__getitem__)
        return [rows[index] for index in order]

    def _marks(self, rows: list[Cells]) -> list[float]:
        """The key of each row; that of the row before it where it has none."""
        marks: list[float] = []
        for row in rows:
            before = marks[-1] if marks else -math.inf
            marks.append(float(row[self.key]) if self.key in row else before)
        return marks


def _row_of_text(row: Mapping[str, Any]) -> Cells:
    return {str(name): text for name, value in row.items() if (text := _text(value))}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    number = scalar(value)
    return "" if number is None else repr(number)


def _value(text: str) -> Value:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _cells(columns: list[str], line: list[str]) -> Cells:
    return {name: text for name, text in zip(columns, line, strict=False) if text}


def _lines(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
