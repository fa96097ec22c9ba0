"""What every foreign source gets around it."""

import itertools

import numpy as np
import pytest

from boltax.data._checked import CheckedSource
from boltax.data._iterables import SequenceSource
from boltax.data._source import as_source
from boltax.errors import DataError
from dummies import classes, classifier


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


class Says:
    """A loader whose ``len()`` may be wrong, and which fills one array again and again."""

    def __init__(self, says, gives):
        self.says, self.gives, self.buffer = says, gives, np.zeros((2, 1), np.float32)

    def __len__(self):
        return self.says

    def __iter__(self):
        for number in range(self.gives):
            self.buffer[...] = number
            yield self.buffer


def values(source, epoch=1, most=None):
    return [int(b[0, 0]) for b, _ in itertools.islice(source.epoch(epoch), most)]


def test_more_batches_than_promised_are_told_at_the_last_that_is_used(caplog):
    source = as_source(Says(3, 6))
    assert values(source, most=3) == [0, 1, 2]
    (message,) = caplog.messages
    assert (
        "gives more batches than its len(), which is 3. An epoch ends after 3, and the" in message
    )
    assert "LoopOptions(steps_per_epoch=...)" in message
    assert values(source, epoch=2) == [0, 1, 2, 3, 4, 5]
    assert len(caplog.messages) == 1


def test_all_batches_come_whatever_was_looked_at(caplog):
    assert values(as_source(Says(3, 6), name="val_loader")) == [0, 1, 2, 3, 4, 5]
    assert "All of them are used" in caplog.text


def test_fewer_batches_than_promised_are_told_with_what_follows_for_the_schedule(caplog):
    assert values(as_source(Says(6, 4))) == [0, 1, 2, 3]
    (message,) = caplog.messages
    assert "ended after 4 batches in epoch 1, and its len() says 6" in message
    assert "comes only 67% of its way" in message
    assert "LoopOptions(steps_per_epoch=4)" in message


def test_a_length_that_is_right_is_not_spoken_of(caplog):
    source = as_source(Says(4, 4))
    assert values(source) == values(source, most=4) == [0, 1, 2, 3]
    assert values(as_source(Says(4, 6), steps_per_epoch=5), most=5) == [0, 1, 2, 3, 4]
    assert not caplog.messages


def test_a_length_of_0_is_told_from_an_empty_loader():
    with pytest.raises(DataError, match=r"whose len\(\) is 0 and which gave a batch in epoch 1"):
        values(as_source(Says(0, 2)))
    with pytest.raises(DataError, match="gave no batch in epoch 1"):
        values(as_source(Says(0, 0)))
    assert values(as_source(Says(0, 2), steps_per_epoch=3)) == [0, 1, 0]


def test_a_generator_that_ends_within_an_epoch_says_so(caplog):
    source = as_source((np.full((2, 1), i) for i in range(15)), steps_per_epoch=10)
    assert [len(values(source, epoch)) for epoch in (1, 2)] == [10, 5]
    assert "ended after 5 batches in epoch 2, and LoopOptions(steps_per_epoch=...)" in caplog.text
    message = (
        r"for epochs of 10 steps, which ended after 15 batches, within epoch 2; .*max_steps=15"
    )
    with pytest.raises(DataError, match=message):
        values(source, 3)


def test_the_run_tells_what_a_wrong_length_does(tmp_path, caplog):
    inputs, labels = classes(4)

    class Few(Says):
        def __iter__(self):
            return iter([(inputs, labels)] * self.gives)

    trainer = classifier(tmp_path)
    trainer.train_model(Few(6, 4), num_epochs=1)
    assert int(trainer.state.step) == 4
    assert "comes only 67% of its way" in caplog.text
    with pytest.raises(DataError, match=r"len\(\) is 0"):
        classifier(tmp_path).train_model(Few(0, 4), num_epochs=1)


def test_an_exception_behind_the_last_batch_comes_to_who_asks_for_more():
    class Broken(Says):
        def __iter__(self):
            yield from super().__iter__()
            raise OSError("the disk is gone")

    assert values(as_source(Broken(3, 3)), most=3) == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        values(as_source(Broken(3, 3)))
