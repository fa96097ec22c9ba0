"""Hugging Face data sets: refused as loaders with the line that works, taken by ArrayLoader."""

import numpy as np
import pytest

from boltax.data import ArrayLoader
from boltax.data._source import as_source
from boltax.errors import DataError


class Dataset:
    """What boltax uses of a `datasets.Dataset`: examples by number, columns in a format."""

    __module__ = "datasets.arrow_dataset"

    def __init__(self, columns, is_numpy=False):
        self.columns, self.is_numpy = columns, is_numpy

    def with_format(self, kind):
        assert kind == "numpy"
        return type(self)(self.columns, is_numpy=True)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        rows = {name: values[key] for name, values in self.columns.items()}
        return {n: np.asarray(v) for n, v in rows.items()} if self.is_numpy else rows

    def iter(self, batch_size):
        for first in range(0, len(self), batch_size):
            yield self[first : first + batch_size]


class IterableDataset(Dataset):
    __module__ = "datasets.iterable_dataset"


class DatasetDict(dict):
    __module__ = "datasets.dataset_dict"


ROWS = Dataset({"x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "label": [0, 1, 0]})


def test_columns_become_the_arrays_of_a_loader():
    first, second = ArrayLoader(ROWS, 2)
    assert first["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert first["label"].tolist() == [0, 1]
    assert second["label"].tolist() == [0]


@pytest.mark.parametrize(
    ("loader", "advice"),
    [
        (ROWS, r"train_loader=boltax.data.ArrayLoader\(dataset, batch_size=128, shuffle=True\)"),
        (ROWS, r"train_loader=lambda: dataset.with_format\(\"numpy\"\).iter\(batch_size=128\)"),
        (DatasetDict(train=ROWS, test=ROWS), r"splits 'train', 'test'.*dataset\[\"train\"\]"),
        (IterableDataset(ROWS.columns), r"lambda: dataset.with_format\(\"numpy\"\).iter"),
    ],
)
def test_a_data_set_as_loader_is_told_the_line_that_works(loader, advice):
    with pytest.raises(DataError, match=advice):
        as_source(loader)


def test_the_line_for_large_data_sets_works():
    source = as_source(lambda: ROWS.with_format("numpy").iter(batch_size=2))
    assert [batch["label"].tolist() for batch, _ in source.epoch(1)] == [[0, 1], [0]]
