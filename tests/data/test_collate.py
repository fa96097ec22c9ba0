"""The guide's numpy_collate and create_data_loaders."""

import numpy as np
import pytest

from boltax.data import create_data_loaders, numpy_collate
from boltax.errors import ConfigurationError, DataError


def test_arrays_are_stacked():
    batch = numpy_collate([np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)])
    assert batch.shape == (2, 2, 3)
    assert batch.dtype == np.float32


def test_tuples_become_lists_of_arrays():
    batch = numpy_collate([(np.zeros(2), 1), (np.ones(2), 2)])
    assert isinstance(batch, list)
    assert [part.tolist() for part in batch] == [[[0, 0], [1, 1]], [1, 2]]


def test_dicts_and_nesting_are_kept():
    batch = numpy_collate([{"a": (1.0, [2]), "b": True}, {"a": (3.0, [4]), "b": False}])
    assert batch["a"][0].tolist() == [1.0, 3.0]
    assert batch["a"][1][0].tolist() == [2, 4]
    assert batch["b"].tolist() == [True, False]


def test_examples_of_unequal_structure_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        numpy_collate([(1, 2), (3,)])


def test_tensors_become_arrays():
    torch = pytest.importorskip("torch")
    batch = numpy_collate([(torch.ones(2), torch.tensor(1)), (torch.zeros(2), torch.tensor(2))])
    assert [type(part) for part in batch] == [np.ndarray, np.ndarray]
    assert batch[1].tolist() == [1, 2]


@pytest.fixture
def dataset():
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.arange(20.0).reshape(10, 2), torch.arange(10))


def labels(loader):
    return [batch[1].tolist() for batch in loader]


def test_training_set_is_shuffled_by_the_seed_without_partial_batch(dataset):
    options = {"batch_size": 4, "num_workers": 0}
    (loader,) = create_data_loaders(dataset, **options)
    (again,) = create_data_loaders(dataset, **options, seed=42)
    (other,) = create_data_loaders(dataset, **options, seed=1)
    first = labels(loader)
    assert [len(batch) for batch in first] == [4, 4]
    assert first == labels(again)
    assert first != labels(other)
    assert first != labels(loader)


def test_each_data_set_has_its_own_answer(dataset):
    train, val = create_data_loaders(
        dataset, dataset, train=[True, False], batch_size=4, num_workers=0
    )
    assert len(train) == 2
    assert labels(val) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_workers_do_not_fork_and_persist(dataset):
    (loader,) = create_data_loaders(dataset, train=False, batch_size=4, num_workers=2)
    assert loader.multiprocessing_context.get_start_method() in ("forkserver", "spawn")
    assert loader.persistent_workers
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_data_set_that_workers_cannot_get_is_refused_at_once():
    pytest.importorskip("torch")
    with pytest.raises(DataError, match=r"data set 0 of create_data_loaders.*num_workers=2"):
        create_data_loaders([lambda: 0], num_workers=2)


def test_answers_for_too_few_data_sets_are_refused(dataset):
    with pytest.raises(ConfigurationError, match=r"with 2 data sets and train=\[True\]"):
        create_data_loaders(dataset, dataset, train=[True], num_workers=0)


def test_without_torch_the_extra_is_named(monkeypatch):
    import sys

    from boltax.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "torch.utils.data", None)
    with pytest.raises(MissingExtraError, match=r'pip install "boltax\[torch\]"'):
        create_data_loaders([1, 2])
