"""Hugging Face data sets: tables of examples, which are no loaders by themselves.

May not import datasets: a program that has one of them has done so.
"""

from typing import Any

from boltax.data._arrays import is_a
from boltax.errors import DataError


def is_rows(value: object) -> bool:
    """Whether a value is a `datasets.Dataset`, whose items are examples and not batches."""
    return is_a(value, "datasets", "Dataset")


def rows_of(dataset: Any) -> dict[str, Any]:
    """All columns of a data set as NumPy arrays ``[examples, ...]``."""
    return dict(dataset.with_format("numpy")[:])


def refuse_rows(loader: Any, name: str) -> None:
    """Raises for a data set, a dict of them by split, or a stream of examples.

    Args:
        loader: what the user gave.
        name: the argument that it was.

    Raises:
        DataError: with the line that makes a loader of it.
    """
    if is_a(loader, "datasets", "DatasetDict") or is_a(loader, "datasets", "IterableDatasetDict"):
        raise DataError(
            f"Received {name}, a Hugging Face {type(loader).__name__} with the splits "
            f"{', '.join(map(repr, loader))}; expected one of them as a loader. Write "
            f'{name}=boltax.data.ArrayLoader(dataset["train"], batch_size=128, shuffle=True).'
        )
    if is_rows(loader):
        raise DataError(
            f"Received {name}, a Hugging Face Dataset, which gives examples one by one; expected "
            f"a loader, which gives batches. Write {name}=boltax.data.ArrayLoader(dataset, "
            "batch_size=128, shuffle=True) where it fits into memory, and otherwise "
            f'{name}=lambda: dataset.with_format("numpy").iter(batch_size=128).'
        )
    if is_a(loader, "datasets", "IterableDataset"):
        raise DataError(
            f"Received {name}, a Hugging Face IterableDataset, which gives examples one by one; "
            f"expected a loader, which gives batches. Write {name}=lambda: "
            'dataset.with_format("numpy").iter(batch_size=128).'
        )
