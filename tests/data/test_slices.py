"""Epochs of fixed length out of pass after pass over a loader."""

import gc
import itertools
import weakref

import numpy as np
import pytest

from boltax.data import ArrayLoader
from boltax.data._slices import EpochSlices
from boltax.data._source import as_source

LOADER = ArrayLoader(np.arange(10), 2, shuffle=True, seed=3)


def batches(source, epoch, after=None):
    return [batch.tolist() for batch, _ in source.epoch(epoch, after)]


def test_epoch_out_of_order_equals_the_one_in_order():
    in_order = EpochSlices(LOADER, 3)
    expected = [batches(in_order, epoch) for epoch in (1, 2, 3, 4)]
    assert batches(EpochSlices(LOADER, 3), 4) == expected[3]
    assert (
        batches(
            EpochSlices(LOADER, 3),
            2,
            after={"epoch": 2, "batch": 1, "pass": {"epoch": 1, "batch": 4}},
        )
        == expected[1][1:]
    )
    assert [batches(in_order, epoch) for epoch in (1, 2)] == expected[:2]


def test_loader_without_length_is_read_from_its_beginning():
    source = as_source(lambda: iter(np.arange(10).reshape(5, 2)), steps_per_epoch=3)
    assert batches(source, 2) == [[6, 7], [8, 9], [0, 1]]


def test_passes_follow_each_other():
    epochs = [batches(EpochSlices(LOADER, 4), epoch) for epoch in (1, 2, 3)]
    stream = list(itertools.chain(*epochs))
    passes = [batches(LOADER, 1), batches(LOADER, 2), batches(LOADER, 3)]
    assert stream == [*passes[0], *passes[1], *passes[2]][:12]


def test_cursor_holds_that_of_the_pass():
    *_, (_, cursor) = EpochSlices(LOADER, 4).epoch(2)
    assert cursor == {"epoch": 2, "batch": 4, "pass": {"epoch": 2, "batch": 3}}


def test_endless_torch_stream_is_not_read_from_its_beginning_each_epoch():
    data = pytest.importorskip("torch.utils.data")

    class Endless(data.IterableDataset):
        def __iter__(self):
            return iter(range(10**9))

    source = as_source(data.DataLoader(Endless(), batch_size=2), steps_per_epoch=2)
    assert batches(source, 1) == [[0, 1], [2, 3]]
    assert batches(source, 2) == [[4, 5], [6, 7]]


def test_fingerprint_has_the_steps():
    assert EpochSlices(LOADER, 3).fingerprint()["steps_per_epoch"] == 3
    assert EpochSlices(LOADER, 3).num_batches == 3
    assert EpochSlices(LOADER, 3).owns_batches


def test_source_that_is_dropped_midway_frees_its_loader_at_once():
    """Workers of a loader that waits for the garbage collector take seconds to stop."""

    class Loader:
        def __iter__(self):
            return itertools.repeat(np.zeros(2))

    loader = Loader()
    source = as_source(loader, steps_per_epoch=3)
    next(source.epoch(1))
    freed = weakref.ref(loader)
    gc.disable()
    try:
        del source, loader
        assert freed() is None
    finally:
        gc.enable()
