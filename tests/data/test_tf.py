"""tf.data beyond the table in test_source.py: lengths, memory, and what cannot be dense."""

import itertools

import numpy as np
import pytest

from boltax.data._source import as_source
from boltax.errors import DataError
from dummies import classes, classifier

tf = pytest.importorskip("tensorflow")


def test_endless_data_set_has_no_length_and_goes_on_with_steps():
    dataset = tf.data.Dataset.range(5).batch(1).repeat()
    assert as_source(dataset).num_batches is None
    source = as_source(dataset, steps_per_epoch=3)
    seen = [[int(batch[0]) for batch, _ in source.epoch(epoch)] for epoch in (1, 2)]
    assert seen == [[0, 1, 2], [3, 4, 0]]


def test_shuffled_epochs_hold_all_and_differ():
    source = as_source(tf.data.Dataset.range(50).shuffle(50, seed=1).batch(8))
    epochs = [[batch.tolist() for batch, _ in source.epoch(epoch)] for epoch in (1, 2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(50))


def test_arrays_are_read_only_views():
    source = as_source(tf.data.Dataset.range(5).batch(2))
    batch, _ = next(source.epoch(1))
    assert type(batch) is np.ndarray
    assert not batch.flags.writeable


@pytest.mark.parametrize(
    "element",
    [
        lambda: tf.ragged.constant([[1], [2, 3]]),
        lambda: {"a": (tf.ones(2), tf.sparse.from_dense([[1, 0]]))},
    ],
)
def test_ragged_and_sparse_elements_are_refused_before_they_are_read(element):
    dataset = tf.data.Dataset.from_tensors(element())
    with pytest.raises(DataError, match=r"(Ragged|Sparse)TensorSpec.*expected dense.*padded_batch"):
        as_source(dataset)


def test_text_is_refused():
    source = as_source(tf.data.Dataset.from_tensor_slices({"s": ["a", "b"]}).batch(2))
    with pytest.raises(DataError, match=r"batch\['s'\]: object\[2\].*encode text as integers"):
        next(source.epoch(1))


def test_an_endless_data_set_asks_for_the_end_of_an_epoch(tmp_path):
    dataset = tf.data.Dataset.from_tensors(classes(4)).repeat()
    trainer = classifier(tmp_path)
    with pytest.raises(DataError, match=r"train_loader, .*repeats for ever.*steps_per_epoch"):
        trainer.train_model(dataset, num_epochs=1)
    with pytest.raises(DataError, match=r"repeats for ever.*limit_val_batches"):
        trainer.eval_model(dataset)
    with pytest.raises(DataError, match=r"repeats for ever.*\.take"):
        trainer.predict_model(dataset)
    trainer.train_model(dataset, num_epochs=1, max_steps=3)
    assert int(trainer.state.step) == 3
