"""One table of loaders: a fresh one behind a cursor is bitwise the uninterrupted one."""

import functools
import itertools
import json
import multiprocessing
import sys
import warnings

import jax
import numpy as np
import pytest

from boltax.data._array_loader import ArrayLoader
from boltax.data._cursor import cursor_from_json, cursor_to_json
from boltax.data._source import as_source

X = np.arange(22, dtype=np.float32).reshape(11, 2)
BATCHES = [{"x": X[i : i + 3]} for i in (0, 3, 6, 9)]


class GetItem:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return BATCHES[index]


class ReIterable:
    def __iter__(self):
        return iter(BATCHES)


class Rows:
    """A data source without a ``repr`` of its own."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index]


def torch_loader(kind="torch.utils.data", seed=3, noise=False, **options):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip(kind)
    loader = getattr(module, "DataLoader", None) or module.StatefulDataLoader
    if kind.startswith("torchdata"):
        loader = module.StatefulDataLoader
    torch.manual_seed(5)  # "another process" has another one when the cursor is read
    if options.get("shuffle") and seed is not None:
        options["generator"] = torch.Generator().manual_seed(seed)
    if noise:
        options["collate_fn"] = lambda rows: torch.tensor(np.stack(rows)) + torch.rand(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata calls what newer versions of torch deprecate
        return loader(options.pop("dataset", X), batch_size=3, **options)


stateful = functools.partial(torch_loader, "torchdata.stateful_dataloader")


def replacing(make):
    sampler = pytest.importorskip("torchdata.stateful_dataloader.sampler")
    generator = pytest.importorskip("torch").Generator().manual_seed(1)
    return make(sampler=sampler.RandomSampler(X, replacement=True, generator=generator))


def torch_sampler():
    data = pytest.importorskip("torch.utils.data")
    generator = pytest.importorskip("torch").Generator().manual_seed(1)
    return torch_loader(sampler=data.RandomSampler(X, generator=generator))


def stream(make, endless=False):
    data = pytest.importorskip("torch.utils.data")

    class Counting:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            return self

        def __next__(self):
            if self.at >= 11 and not endless:
                raise StopIteration
            self.at += 1
            return np.float32(self.at)

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    class Stream(data.IterableDataset):
        def __iter__(self):
            return Counting()

    return make(dataset=Stream())


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices({"x": X}).shuffle(11, seed=2).batch(3).prefetch(2)


def grain_map(batch=3):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(X).shuffle(seed=4).batch(batch)


def grain_window():
    grain = pytest.importorskip("grain")
    dataset = grain.MapDataset.source(X).to_iter_dataset()
    shuffle = grain.experimental.WindowShuffleIterDataset
    return shuffle(dataset, window_size=5, seed=1).filter(lambda x: x[0] != 8).batch(3)


def grain_prefetched(workers):
    grain = pytest.importorskip("grain")
    options = grain.MultiprocessingOptions(num_workers=workers)
    return grain_map().to_iter_dataset().mp_prefetch(options)


def grain_loader(source=X, workers=0):
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(11, shuffle=True, seed=1, num_epochs=1),
        operations=[grain.transforms.Batch(3)],
        worker_count=workers,
    )


def shuffled():
    return ArrayLoader({"x": X}, 3, shuffle=True, seed=2)


def endless():
    return ({"x": X[:1] + i} for i in itertools.count())


KINDS = {  # how to make the loader, steps in an epoch if it does not decide them itself
    "array loader": (shuffled, None),
    "array loader in steps": (shuffled, 3),
    "array loader in long steps": (shuffled, 7),
    "list": (lambda: list(BATCHES), None),
    "list in steps": (lambda: list(BATCHES), 3),
    "getitem and len": (GetItem, None),
    "iterable": (ReIterable, None),
    "iterable in steps": (ReIterable, 3),
    "function": (lambda: lambda: iter(BATCHES), None),
    "function in steps": (lambda: lambda: iter(BATCHES), 3),
    "function of loader": (lambda: shuffled, None),
    "endless generator": (endless, 3),
    "torch": (lambda: torch_loader(shuffle=True), None),
    "torch dropping the last": (lambda: torch_loader(shuffle=True, drop_last=True), None),
    "torch without generator": (lambda: torch_loader(shuffle=True, seed=None), None),
    "torch with noise": (lambda: torch_loader(shuffle=True, noise=True), None),
    "torch sampler": (torch_sampler, None),
    "torch replacing": (lambda: replacing(torch_loader), None),
    "torch in steps": (lambda: torch_loader(shuffle=True), 3),
    "torch stream": (lambda: stream(torch_loader), None),
    "torchdata": (lambda: stateful(shuffle=True), None),
    "torchdata dropping the last": (lambda: stateful(shuffle=True, drop_last=True), None),
    "torchdata without generator": (lambda: stateful(shuffle=True, seed=None), None),
    "torchdata with noise": (lambda: stateful(shuffle=True, noise=True), None),
    "torchdata replacing": (lambda: replacing(stateful), None),
    "torchdata in steps": (lambda: stateful(shuffle=True), 3),
    "torchdata stream": (lambda: stream(stateful), None),
    "torchdata endless stream": (lambda: stream(stateful, endless=True), 3),
    "tf": (tf_dataset, None),
    "tf in steps": (tf_dataset, 3),
    "grain map": (grain_map, None),
    "grain map in steps": (grain_map, 3),
    "grain map endless": (lambda: grain_map().repeat(), 3),
    "grain map filtered": (lambda: grain_map().filter(lambda x: x[0, 0] != 6), None),
    "grain iter": (lambda: grain_map().to_iter_dataset(), None),
    "grain iter endless": (lambda: grain_map().repeat().to_iter_dataset(), 3),
    "grain window": (grain_window, None),
    "grain loader": (grain_loader, None),
    "grain loader of own source": (lambda: grain_loader(Rows()), None),
    "grain loader in steps": (grain_loader, 3),
}
WITH_WORKERS = {
    "torch": (lambda: torch_loader(shuffle=True, num_workers=2), None),
    "torchdata": (lambda: stateful(shuffle=True, num_workers=2), None),
    "torchdata persistent": (
        lambda: stateful(shuffle=True, num_workers=1, persistent_workers=True),
        None,
    ),
    "grain prefetched": (lambda: grain_prefetched(2), None),
    "grain loader": (lambda: grain_loader(workers=2), None),
}
FOREIGN_WARNINGS = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def source_of(make, steps):
    return as_source(make(), steps_per_epoch=steps)


def arrays(pairs):
    return [[np.array(leaf) for leaf in jax.tree.leaves(batch)] for batch, _ in pairs]


def assert_equal(pairs, expected):
    got, wanted = arrays(pairs), expected
    assert len(got) == len(wanted)
    for leaves, others in zip(got, wanted, strict=True):
        for leaf, other in zip(leaves, others, strict=True):
            assert leaf.dtype == other.dtype
            np.testing.assert_array_equal(leaf, other)


def saved(cursor):
    """The cursor as another process reads it, whose random numbers are others."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(99)
    return cursor_from_json(json.loads(json.dumps(cursor_to_json(cursor))))


def uninterrupted(make, steps):
    """Batches and cursors of three epochs."""
    source = source_of(make, steps)
    epochs = [list(source.epoch(epoch)) for epoch in (1, 2, 3)]
    return [arrays(pairs) for pairs in epochs], [[c for _, c in pairs] for pairs in epochs]


def assert_goes_on(make, steps, points):
    batches, cursors = uninterrupted(make, steps)
    for epoch, place in points:
        wanted = batches[epoch - 1]
        number = len(wanted) if place == "last" else place
        source = source_of(make, steps)
        after = saved(cursors[epoch - 1][number - 1])
        assert_equal(source.epoch(epoch, after), wanted[number:])
        assert_equal(source.epoch(epoch + 1), batches[epoch])


@FOREIGN_WARNINGS
@pytest.mark.parametrize("point", [(1, 1), (1, 2), (1, "last"), (2, 1), (2, "last")])
@pytest.mark.parametrize("kind", KINDS)
def test_rest_of_the_epoch_and_the_next_are_those_of_the_uninterrupted_run(kind, point):
    assert_goes_on(*KINDS[kind], [point])


@pytest.fixture
def quick_starts(monkeypatch):
    """Has Grain's workers, which import for seconds each, forked by a process that has imported."""
    context = multiprocessing.get_context
    monkeypatch.setattr(
        multiprocessing,
        "get_context",
        lambda method=None: context("forkserver" if method == "spawn" else method),
    )
    multiprocessing.set_forkserver_preload(["boltax", "grain", "torch.utils.data"])


@FOREIGN_WARNINGS
@pytest.mark.slow
@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_workers_go_on_as_well(kind, quick_starts):
    assert_goes_on(*WITH_WORKERS[kind], [(1, 1), (1, "last"), (2, 2)])


@FOREIGN_WARNINGS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epoch", [1, 2])
def test_next_epoch_goes_on_behind_the_end_of_the_one_before(kind, epoch):
    make, steps = KINDS[kind]
    batches, cursors = uninterrupted(make, steps)
    source = source_of(make, steps)
    assert_equal(source.epoch(epoch + 1, saved(cursors[epoch - 1][-1])), batches[epoch])


@FOREIGN_WARNINGS
@pytest.mark.parametrize("kind", KINDS)
def test_next_epoch_is_right_if_nothing_more_was_asked_of_the_interrupted_one(kind):
    make, steps = KINDS[kind]
    batches, cursors = uninterrupted(make, steps)
    source = source_of(make, steps)
    if source.num_batches is None:
        pytest.skip("only its end tells the loop that an epoch is over")
    assert list(itertools.islice(source.epoch(1, saved(cursors[0][-1])), 0)) == []
    assert_equal(source.epoch(2), batches[1])


@FOREIGN_WARNINGS
@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_is_the_same_before_and_after_iteration_and_for_a_new_loader(kind):
    make, steps = KINDS[kind]
    source = source_of(make, steps)
    before = json.dumps(source.fingerprint())
    list(itertools.islice(source.epoch(1), 2))
    assert json.dumps(source.fingerprint()) == before
    list(source_of(make, steps).epoch(1))
    assert json.dumps(source_of(make, steps).fingerprint()) == before
