"""One table of loaders: whatever the kind, the loop sees the same batches and cursors."""

import itertools
import json
import warnings

import jax
import numpy as np
import pytest

from boltax.data._array_loader import ArrayLoader
from boltax.data._cursor import consumed, cursor_from_json, cursor_to_json
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import as_source
from boltax.errors import DataError

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10, dtype=np.int32)
BATCHES = [{"x": X[i : i + 4], "y": Y[i : i + 4]} for i in (0, 4, 8)]


class ReIterable:
    def __iter__(self):
        return iter(BATCHES)


class GetItem:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return BATCHES[index]


class OwnSource:
    num_batches = 3
    owns_batches = False

    def epoch(self, epoch, after=None):
        for index in range(consumed(after, epoch), 3):
            yield BATCHES[index], {"epoch": epoch, "batch": index + 1, "own": index}

    def fingerprint(self):
        return {"kind": "own"}


def torch_examples():
    return [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]


def torch_loader(**options):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(torch_examples(), batch_size=4, **options)


def torch_iterable():
    data = pytest.importorskip("torch.utils.data")

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(torch_examples())

    return data.DataLoader(Stream(), batch_size=4)


def torchdata_loader():
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls what newer versions of torch deprecate
        return stateful.StatefulDataLoader(torch_examples(), batch_size=4)


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}).batch(4)


def grain_map():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(torch_examples()).batch(4)


def grain_loader():
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=torch_examples(),
        sampler=grain.samplers.SequentialSampler(10),
        operations=[grain.transforms.Batch(4)],
        worker_count=0,
    )


KINDS = {  # how to make the loader, its number of batches
    "array loader": (lambda: ArrayLoader({"x": X, "y": Y}, 4), 3),
    "list": (lambda: list(BATCHES), 3),
    "getitem and len": (GetItem, 3),
    "iterable": (ReIterable, None),
    "function": (lambda: lambda: iter(BATCHES), None),
    "function of loader": (lambda: lambda: ArrayLoader({"x": X, "y": Y}, 4), None),
    "source": (OwnSource, 3),
    "torch": (torch_loader, 3),
    "torch workers": (lambda: torch_loader(num_workers=2), 3),
    "torch persistent workers": (
        lambda: torch_loader(num_workers=2, persistent_workers=True),
        3,
    ),
    "torch iterable": (torch_iterable, None),
    "torchdata": (torchdata_loader, 3),
    "tf": (tf_dataset, 3),
    "tf without length": (lambda: tf_dataset().filter(lambda batch: True), None),
    "grain map": (grain_map, 3),
    "grain iter": (lambda: grain_map().to_iter_dataset(), None),
    "grain loader": (grain_loader, None),
}
READ_ONCE = {"generator": (lambda: (batch for batch in BATCHES), None)}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
EACH_KIND_AND_GENERATOR = pytest.mark.parametrize("kind", {**KINDS, **READ_ONCE})


def source_of(kind, **options):
    make, _ = {**KINDS, **READ_ONCE}[kind]
    return as_source(make(), **options)


def assert_batches(batches, expected=BATCHES):
    batches = list(batches)
    assert len(batches) == len(expected)
    for batch, wanted in zip(batches, expected, strict=True):
        assert jax.tree.structure(batch) == jax.tree.structure(wanted)
        assert {type(leaf) for leaf in jax.tree.leaves(batch)} == {np.ndarray}
        jax.tree.map(np.testing.assert_array_equal, batch, wanted)


@EACH_KIND_AND_GENERATOR
def test_epoch_gives_all_batches_in_order_with_the_ragged_last_one(kind):
    assert_batches(batch for batch, _ in source_of(kind).epoch(1))


@EACH_KIND_AND_GENERATOR
def test_cursor_counts_consumed_batches_and_is_json(kind):
    cursors = [cursor for _, cursor in source_of(kind).epoch(1)]
    assert [(c["epoch"], c["batch"]) for c in cursors] == [(1, 1), (1, 2), (1, 3)]
    for cursor in cursors:
        stored = json.loads(json.dumps(cursor_to_json(cursor)))
        assert cursor_to_json(cursor_from_json(stored)) == stored


@EACH_KIND
def test_second_epoch_gives_all_batches_again(kind):
    source = source_of(kind)
    for epoch in (1, 2):
        pairs = list(source.epoch(epoch))
        assert_batches(batch for batch, _ in pairs)
        assert {cursor["epoch"] for _, cursor in pairs} == {epoch}


@EACH_KIND_AND_GENERATOR
@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_cursor_gives_the_batches_that_are_left(kind, start):
    pairs = list(source_of(kind).epoch(1, after={"epoch": 1, "batch": start, "drawn": start}))
    assert_batches((batch for batch, _ in pairs), BATCHES[start:])
    assert [cursor["batch"] for _, cursor in pairs] == list(range(start + 1, 4))


@EACH_KIND
def test_epoch_that_is_left_early_does_not_disturb_the_next(kind):
    source = source_of(kind)
    assert_batches((b for b, _ in itertools.islice(source.epoch(1), 1)), BATCHES[:1])
    assert_batches(batch for batch, _ in source.epoch(2))


@EACH_KIND_AND_GENERATOR
def test_number_of_batches_is_known_where_the_loader_knows_it(kind):
    assert source_of(kind).num_batches == {**KINDS, **READ_ONCE}[kind][1]


@EACH_KIND_AND_GENERATOR
def test_fingerprint_is_json_and_equal_for_an_equal_loader(kind):
    first, second = source_of(kind).fingerprint(), source_of(kind).fingerprint()
    assert json.loads(json.dumps(first)) == first == second
    assert first["kind"]


@EACH_KIND
@pytest.mark.parametrize("steps", [2, 5])
def test_epochs_of_fixed_length_see_pass_after_pass(kind, steps):
    source = source_of(kind, steps_per_epoch=steps)
    endless = list(itertools.islice(itertools.cycle(BATCHES), 2 * steps))
    assert source.num_batches == steps
    assert_batches((b for b, _ in source.epoch(1)), endless[:steps])
    assert_batches((b for b, _ in source.epoch(2)), endless[steps:])


@EACH_KIND_AND_GENERATOR
def test_batches_reach_the_device_with_their_cursors(kind):
    source = source_of(kind)
    with jax.transfer_guard("disallow"):
        stream = prefetch_to_device(source.epoch(1), copy=not source.owns_batches)
        items = [(jax.device_get(c.feed), c.cursors[0]["batch"], c.size) for c in stream]
    assert_batches(batch for batch, _, _ in items)
    assert [item[1:] for item in items] == [(1, 4), (2, 4), (3, 2)]


def test_endless_generator_goes_on_where_it_was():
    source = as_source((np.full(2, i) for i in itertools.count()), steps_per_epoch=3)
    seen = [[int(batch[0]) for batch, _ in source.epoch(epoch)] for epoch in (1, 2, 3)]
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_generator_cut_by_the_reader_loses_no_batch():
    source = as_source(np.full(2, i) for i in itertools.count())
    cut = lambda epoch: itertools.islice(source.epoch(epoch), 3)  # noqa: E731
    seen = [[int(c.feed[0]) for c in prefetch_to_device(cut(epoch))] for epoch in (1, 2)]
    assert seen == [[0, 1, 2], [3, 4, 5]]


def test_array_loader_is_its_own_source():
    loader = ArrayLoader(X, 4)
    assert as_source(loader) is loader


def test_source_is_made_once():
    source = as_source(list(BATCHES), steps_per_epoch=2)
    assert as_source(source, steps_per_epoch=2) is source


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (None, r"Received train_loader=None; expected a loader.* Write"),
        (3, r"train_loader=int; expected a loader.*ArrayLoader\(arrays, batch_size=128\)"),
        ("data/train", r"train_loader='data/train'; .*Pass the loader itself, not its name"),
        (ArrayLoader, r"train_loader=<class .*ArrayLoader'>; .*not its name, path or class"),
        (X, r"numpy.ndarray: float32\[10, 2\]; expected a loader.*ArrayLoader"),
        ((X, Y), r"tuple \(arrays\[0\]: float32\[10, 2\], arrays\[1\]: int32\[10\]\); .*Array"),
        ({"x": X}, r"dict \(arrays\['x'\]: float32\[10, 2\]\); expected a loader"),
        (lambda epoch: [X], r"function .*<lambda>; .*Bind its arguments.*'epoch'"),
        (object(), r"train_loader=object; expected a loader"),
    ],
)
def test_what_is_no_loader_is_refused(loader, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        as_source(loader)


def test_function_that_returns_no_loader_is_refused():
    source = as_source(lambda: None, name="val_loader")
    with pytest.raises(DataError, match=r"what val_loader\(\) returns=None; expected a loader"):
        next(source.epoch(1))


def test_torch_dataset_in_place_of_a_loader_is_refused():
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"TensorDataset of length 3.*DataLoader\(dataset"):
        as_source(dataset)
