"""Fingerprints tell data sets apart, and name each difference."""

import numpy as np
import pytest

from boltax.data import ArrayLoader
from boltax.data import _fingerprint as module
from boltax.data._fingerprint import check_fingerprint, checksum
from boltax.data._source import as_source
from boltax.errors import DataError

X = np.arange(12, dtype=np.float32)


def test_equal_ones_pass():
    saved, now = (ArrayLoader(X, 4).fingerprint() for _ in range(2))
    check_fingerprint(saved, now, "train_loader")


def test_every_difference_is_named():
    saved = ArrayLoader(X, 4, seed=1).fingerprint()
    now = ArrayLoader(X + 1, 6, seed=1).fingerprint()
    with pytest.raises(DataError, match=r"train_loader.*batch_size was 4 and is 6; checksum was"):
        check_fingerprint(saved, now, "train_loader")


def test_lists_are_told_apart_by_their_first_batch():
    one, other = (as_source([X + i]).fingerprint() for i in (0, 1))
    assert one != other


def test_batch_that_changes_with_each_reading_says_nothing():
    class Noisy:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.random.default_rng().random(4)

    assert as_source(Noisy()).fingerprint() == as_source(Noisy()).fingerprint()


def test_large_arrays_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", X.nbytes // 3)
    changed = X.copy()
    changed[1] = -1  # between two sampled ones
    assert checksum([changed]) == checksum([X])
    changed[9] = -1
    assert checksum([changed]) != checksum([X])


@pytest.mark.parametrize(("seed", "batch"), [(1, 4), (0, 3)])
def test_grain_data_sets_of_another_seed_or_batch_size_are_told_apart(seed, batch):
    grain = pytest.importorskip("grain")

    def prints(seed, batch):
        dataset = grain.MapDataset.source(X).shuffle(seed=seed).batch(batch)
        sampler = grain.samplers.IndexSampler(12, shuffle=True, num_epochs=1, seed=seed)
        batching = [grain.transforms.Batch(batch)]
        loader = grain.DataLoader(data_source=X, sampler=sampler, operations=batching)
        made = (dataset, dataset.to_iter_dataset(), loader)
        return [as_source(loader).fingerprint() for loader in made]

    assert prints(0, 4) == prints(0, 4)
    assert all(a != b for a, b in zip(prints(0, 4), prints(seed, batch), strict=True))


def test_torch_seeds_are_told_apart():
    torch = pytest.importorskip("torch")

    def fingerprint(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = torch.utils.data.DataLoader(X, shuffle=True, generator=generator)
        return as_source(loader).fingerprint()

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)
