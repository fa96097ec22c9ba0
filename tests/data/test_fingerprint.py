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


def test_old_fingerprints_of_grain_hold_whatever_the_iteration_changed_in_them():
    grain = pytest.importorskip("grain")
    dataset = grain.MapDataset.source(X).shuffle(seed=1).to_iter_dataset().batch(4)
    now = as_source(dataset).fingerprint()
    module = "grain._src.python.dataset.transformations"
    steps = [
        [f"{module}.batch.BatchIterDataset", {"has_child": True, **now["steps"][0][1]}],
        [f"{module}.prefetch.PrefetchIterDataset", {"has_child": True, "_of_old": 3}],
        [f"{module}.shuffle.ShuffleMapDataset", *now["steps"][2][1:]],
    ]
    check_fingerprint({**now, "steps": steps}, now, "train_loader")
    steps[0][1]["_batch_size"] = 3
    with pytest.raises(DataError, match="steps was"):
        check_fingerprint({**now, "steps": steps}, now, "train_loader")


@pytest.mark.parametrize(
    ("key", "saved", "now", "is_same"),
    [
        ("kind", "torch.utils.data.dataloader.DataLoader", "torch.data.DataLoader", True),
        ("kind", "torch.utils.data.DataLoader", "torchdata.StatefulDataLoader", False),
        ("operations", "[Batch(batch_size=4)]", "[Batch(batch_size=4, batch_fn=None)]", True),
        ("operations", "[Batch(batch_size=4)]", "[Batch(batch_size=5, batch_fn=None)]", False),
        ("operations", "[Batch(size=4), <function f>]", "[Batch(size=4), <function g>]", False),
        ("operations", "[Batch(size=4)]", "[Batch(size=4), Batch(size=4)]", False),
        ("operations", "[Add(array([1, 2]))]", "[Add(array([1, 3]))]", False),
        ("sampler", "Index(n=20, s=No(i=0), seed=1)", "Index(n=20, s=No(i=0, k=2), seed=1)", True),
        ("sampler", "Index(n=20, s=No(i=0), seed=1)", "Index(n=20, s=No(i=1), seed=1)", False),
        ("element_spec", "a.b", "c.b", False),
    ],
)
def test_what_versions_of_a_library_write_otherwise_is_no_difference(key, saved, now, is_same):
    if is_same:
        check_fingerprint({key: saved}, {key: now}, "train_loader")
    else:
        with pytest.raises(DataError, match=f"{key} was"):
            check_fingerprint({key: saved}, {key: now}, "train_loader")


def test_a_batch_that_cannot_be_used_has_no_checksum():
    assert as_source([{"x": X, 0: X}]).fingerprint()["first_batch"] is None
