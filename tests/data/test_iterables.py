"""Empty loaders, loaders that can be read once, and exceptions out of a loader."""

import itertools

import numpy as np
import pytest

from boltax.data._source import as_source
from boltax.errors import DataError

BATCH = np.zeros((2, 3), np.float32)


def test_empty_loader_is_named_in_the_first_epoch():
    source = as_source([], name="val_loader")
    message = r"Received val_loader \(list of length 0\), which gave no batch in epoch 1.*drop_last"
    with pytest.raises(DataError, match=message):
        next(source.epoch(1))


def test_empty_loader_with_steps_per_epoch_ends():
    with pytest.raises(DataError, match="gave no batch in epoch 1"):
        next(as_source([], steps_per_epoch=3).epoch(1))


def test_spent_generator_says_what_to_pass():
    source = as_source(iter([BATCH]))
    assert len(list(source.epoch(1))) == 1
    message = r"none in epoch 2: it can be read only once.*list.*function.*per_epoch.*max_steps"
    with pytest.raises(DataError, match=message):
        next(source.epoch(2))


def test_generator_that_was_spent_by_an_earlier_source_is_told_from_an_empty_loader():
    with pytest.raises(DataError, match="it can be read only once"):
        next(as_source(iter([])).epoch(2))


def test_spent_generator_for_validation_is_told_of_no_training_option():
    source = as_source(iter([BATCH]), name="val_loader")
    list(source.epoch(1))
    with pytest.raises(DataError, match="fresh iterator") as caught:
        next(source.epoch(2))
    assert "steps_per_epoch" not in str(caught.value)


def test_iterable_that_is_spent_after_one_pass_is_found():
    class Once:
        iterator = iter([BATCH])

        def __iter__(self):
            return self.iterator

    source = as_source(Once())
    list(source.epoch(1))
    with pytest.raises(DataError, match="it can be read only once"):
        next(source.epoch(2))


def test_iterator_that_ends_within_an_epoch_gives_a_short_one():
    source = as_source(iter([BATCH] * 5), steps_per_epoch=3)
    assert [len(list(source.epoch(epoch))) for epoch in (1, 2)] == [3, 2]


def test_iterator_is_not_read_ahead():
    drawn = []
    source = as_source(drawn.append(i) or BATCH for i in range(9))
    stream = source.epoch(1)
    next(stream), next(stream)
    stream.close()
    assert drawn == [0, 1]
    next(source.epoch(2))
    assert drawn == [0, 1, 2]


def test_iterator_in_a_new_process_skips_what_was_consumed():
    source = as_source((np.full(2, i) for i in itertools.count()), steps_per_epoch=4)
    batch, cursor = next(source.epoch(3, after={"epoch": 3, "batch": 1, "drawn": 9}))
    assert batch[0] == 9
    assert cursor == {"epoch": 3, "batch": 2, "drawn": 10}


def test_generator_function_is_called_for_each_epoch():
    def batches():
        yield BATCH
        yield BATCH

    source = as_source(batches)
    assert [len(list(source.epoch(epoch))) for epoch in (1, 2, 3)] == [2, 2, 2]


def test_function_that_returns_a_shuffled_loader_is_asked_for_the_epoch():
    from boltax.data import ArrayLoader

    loader = ArrayLoader(np.arange(9), 9, shuffle=True)
    source = as_source(lambda: loader)
    for epoch in (1, 2):
        ((batch, _),) = source.epoch(epoch)
        assert batch.tolist() == loader.order(epoch).tolist()


def test_exception_keeps_its_type_and_gains_epoch_and_batch():
    def broken():
        yield BATCH
        raise KeyError("label")

    source = as_source(broken, name="val_loader")
    with pytest.raises(KeyError, match="label") as caught:
        list(source.epoch(3))
    assert caught.value.__notes__ == ["raised in val_loader (epoch 3, batch 2)"]


def test_loader_whose_length_raises_has_none():
    class NoLength:
        def __len__(self):
            raise TypeError("unknown")

        def __iter__(self):
            return iter([BATCH])

    assert as_source(NoLength()).num_batches is None


def test_dropped_batches_are_said_aloud_once(caplog):
    source = as_source(lambda: iter([BATCH] * 4))
    assert len(list(source.epoch(1, {"epoch": 1, "batch": 3, "drawn": 3}))) == 1
    (record,) = caplog.records
    assert "3 batches of list_iterator were read and dropped, in" in record.getMessage()
    assert "ArrayLoader, a Grain data set and torchdata's" in record.getMessage()


def test_loader_that_ends_before_the_place_is_refused():
    class Short:
        def __iter__(self):
            return iter([BATCH])

    with pytest.raises(DataError, match="ended after 1 batches, to go on with behind batch 3"):
        next(as_source(Short()).epoch(1, {"epoch": 1, "batch": 3}))
