"""What every foreign source gets around it."""

import numpy as np

from boltax.data._checked import CheckedSource
from boltax.data._iterables import SequenceSource


class Owning(SequenceSource):
    owns_batches = True


def test_properties_of_the_source_show_through():
    inner = Owning([np.zeros(2)] * 3)
    source = CheckedSource(inner, "train_loader", "list")
    assert source.num_batches == 3
    assert source.owns_batches
    assert source.fingerprint() == inner.fingerprint()


def test_epoch_that_was_consumed_before_gives_nothing_without_an_error():
    source = CheckedSource(SequenceSource([np.zeros(2)] * 3), "train_loader", "list")
    assert list(source.epoch(1, after={"epoch": 1, "batch": 3})) == []
