"""The record of a run by epoch, or by validation, as a CSV file: what plots and resume read."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from boltax.errors import ConfigurationError
from boltax.loggers._table import Table, Value


class History:
    """One row per epoch, or per validation, in a plain CSV file; columns may appear later.

    Floats are written so that they read back bit for bit. A kill at any moment leaves whole rows.

    Args:
        path: the file, e.g. ``<log_dir>/history.csv``; made at the first row.
        key: ``"epoch"``, or ``"step"`` where there are several validations in an epoch.

    Example:
        >>> history = History("runs/example/history.csv")
        >>> history.append({"epoch": 1, "train/loss": 0.5})
        >>> history.append({"epoch": 2, "train/loss": 0.25, "val/acc": 0.9})
        >>> history.rows()[1]
        {'epoch': 2, 'train/loss': 0.25, 'val/acc': 0.9}
    """

    def __init__(self, path: str | os.PathLike[str], key: str = "epoch") -> None:
        self._table = Table(os.fspath(path), key=key)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, or adds values to the row that the epoch (or the step) has.

        Args:
            row: ``"epoch"`` and anything else by name; arrays with more than one element are
                left out.

        Raises:
            ConfigurationError: when the row has no epoch.
        """
        _check(row)
        self._table.append(row)
        self._table.settle()

    def rows(self) -> list[dict[str, Value]]:
        """The rows by epoch; a name that an epoch has no value for is not in its row.

        Raises:
            RunDirectoryError: when the file holds something else.
        """
        return self._table.rows()

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Has the file hold these rows and no others, for a run that goes on from there.

        Args:
            rows: as for `append`, one for each epoch; with none the file is removed.

        Raises:
            ConfigurationError: when a row has no epoch.
        """
        rows = list(rows)
        for row in rows:
            _check(row)
        self._table.replace(rows)


def _check(row: Mapping[str, Any]) -> None:
    if not isinstance(row.get("epoch"), int):
        raise ConfigurationError(
            f"Received a row with {sorted(row)} and epoch {row.get('epoch')!r}; expected the "
            'number of its epoch, counted from 1. Write append({"epoch": 1, ...}).'
        )
