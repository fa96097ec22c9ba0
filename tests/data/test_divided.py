"""Loaders that several processes read together; see also ``parallel/test_several.py``."""

from types import SimpleNamespace

import numpy as np
import pytest

from boltax.data import ArrayLoader, Divided
from boltax.data._divided import shared_source
from boltax.data._source import as_source
from boltax.errors import DataError
from group_dummies import Store, in_each


def read(loader, group, after=None):
    placement = SimpleNamespace(group=group, check_divided=lambda: None)
    source = shared_source(as_source(loader), loader, "train_loader", placement)
    return list(source.epoch(1, after))


def test_parts_stand_in_the_order_of_processes_each_with_its_own_rows():
    def act(group):
        rows = np.arange(4, dtype=np.int32) + 10 * group.index
        return read(Divided(ArrayLoader(rows, batch_size=2)), group)

    first, second = in_each(Store(), act, count=2)
    # the rows of others are theirs to put on their devices
    assert [batch.tolist() for batch, _ in first] == [[0, 1, 0, 0], [2, 3, 0, 0]]
    assert [batch.tolist() for batch, _ in second] == [[0, 0, 10, 11], [0, 0, 12, 13]]
    assert [cursor for _, cursor in first] == [cursor for _, cursor in second]
    assert first[1][1]["of"] == [{"epoch": 1, "batch": 2}] * 2


def test_a_divided_loader_goes_on_where_it_was():
    def act(group):
        loader = Divided(ArrayLoader(np.arange(6) + 10 * group.index, batch_size=2))
        every = read(loader, group)
        return read(loader, group, after=every[0][1]), every[1:]

    for rest, expected in in_each(Store(), act, count=2):
        assert [batch.tolist() for batch, _ in rest] == [b.tolist() for b, _ in expected]


def test_its_place_holds_for_as_many_processes():
    after = {"epoch": 1, "batch": 1, "of": [{"epoch": 1, "batch": 1}] * 2}
    found = in_each(
        Store(), lambda group: read(Divided([np.zeros(2)] * 3), group, after=after), count=3
    )
    assert all(
        "of 2 processes, each with a part of its own, in a job of 3" in str(e) for e in found
    )


@pytest.mark.parametrize(
    "batches, told",
    [
        ([[1, 2], [3, 4]], "whose batch 2 of epoch 1 is not the same in all processes"),
        ([[1, 2]], "has ended in process 1"),
    ],
)
def test_whole_batches_have_to_be_the_same(batches, told):
    def act(group):
        mine = [[1, 2], [3, 5]] if group.is_first else batches
        return read([np.array(batch) for batch in mine], group)

    for error in in_each(Store(), act, count=2):
        assert isinstance(error, DataError)
        assert told in str(error)


def test_arrays_that_differ_are_told_before_a_batch_is_read():
    def act(group):
        return read(ArrayLoader(np.arange(4) + group.index, batch_size=2), group)

    found = in_each(Store(), act, count=2)
    assert all("different checksum (train_loader)" in str(error) for error in found)


def test_in_a_process_alone_a_divided_loader_is_the_loader():
    batches = [batch.tolist() for batch, _ in as_source(Divided([np.arange(2)] * 2)).epoch(1)]
    assert batches == [[0, 1], [0, 1]]
