"""Grain beyond the table in test_source.py: orders of epochs, states, workers."""

import itertools
import json
import sys

import numpy as np
import pytest

from boltax.data._grain import mark_flags_as_parsed
from boltax.data._source import as_source

grain = pytest.importorskip("grain")


def batches(source, epoch, after=None):
    return [batch.tolist() for batch, _ in source.epoch(epoch, after)]


def shuffled(seed=1):
    return grain.MapDataset.source(np.arange(10)).shuffle(seed=seed).batch(4)


def test_map_dataset_has_another_order_in_each_epoch():
    source = as_source(shuffled())
    first, second = batches(source, 1), batches(source, 2)
    assert first != second
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == list(range(10))
    assert batches(as_source(shuffled()), 2) == second
    assert batches(as_source(shuffled(seed=2)), 2) != second


def test_map_dataset_starts_in_the_middle_of_any_epoch():
    source = as_source(shuffled())
    assert batches(source, 3, {"epoch": 3, "batch": 1}) == batches(source, 3)[1:]


def test_endless_map_dataset_goes_on_with_steps():
    dataset = grain.MapDataset.source(np.arange(3)).batch(1).repeat()
    assert as_source(dataset).num_batches is None
    source = as_source(dataset, steps_per_epoch=2)
    assert batches(source, 1) == [[0], [1]]
    assert batches(source, 2) == [[2], [0]]


def test_filtered_batches_are_counted_as_they_come():
    dataset = grain.MapDataset.source(np.arange(10)).batch(2).filter(lambda batch: batch[0] != 2)
    source = as_source(dataset)
    assert source.num_batches is None
    assert batches(source, 1) == batches(source, 2) == [[0, 1], [4, 5], [6, 7], [8, 9]]
    assert batches(source, 2, {"epoch": 2, "batch": 1}) == [[4, 5], [6, 7], [8, 9]]


def test_cursor_holds_the_state_of_grain():
    dataset = shuffled().to_iter_dataset()
    _, (_, cursor), *_ = as_source(dataset).epoch(1)
    iterator = iter(dataset)
    iterator.set_state(cursor["grain"])
    assert next(iterator).tolist() == batches(as_source(dataset), 1)[2]


def test_cursor_holds_the_state_of_a_data_loader():
    sampler = grain.samplers.SequentialSampler(4)
    loader = grain.DataLoader(
        data_source=np.arange(4),
        sampler=sampler,
        operations=[grain.transforms.Batch(2)],
        worker_count=0,
    )
    (_, cursor), _ = as_source(loader).epoch(1)
    assert json.loads(cursor["grain"])["last_seen_indices"] == {"0": 1}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_workers_start_in_a_program_without_absl_flags():
    dataset = shuffled().to_iter_dataset().mp_prefetch(grain.MultiprocessingOptions(num_workers=1))
    source = as_source(dataset)
    assert sorted(itertools.chain(*batches(source, 1))) == list(range(10))


def test_flags_that_are_not_in_use_are_left_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "absl.flags", raising=False)
    mark_flags_as_parsed()
    assert "absl.flags" not in sys.modules
