"""Batches on the device: ahead of use, with their own cursors, and with memory of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._chunks import Mode, Plan
from boltax.data import ArrayLoader, _array_loader, _prefetch
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import as_source
from boltax.errors import DataError


def stream(count, drawn=None):
    for index in range(count):
        if drawn is not None:
            drawn.append(index)
        yield {"x": np.full(index + 1, index)}, {"batch": index + 1}


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_batches_come_in_order_with_their_own_cursors(depth):
    items = list(prefetch_to_device(stream(4), depth=depth))
    assert [int(chunk.feed["x"][0]) for chunk in items] == [0, 1, 2, 3]
    assert [chunk.cursors for chunk in items] == [[{"batch": n}] for n in (1, 2, 3, 4)]
    assert [chunk.size for chunk in items] == [1, 2, 3, 4]
    assert all(isinstance(chunk.feed["x"], jax.Array) for chunk in items)


def test_empty_stream_gives_nothing():
    assert list(prefetch_to_device(iter(()))) == []


def test_first_batch_waits_for_no_other():
    drawn = []
    next(prefetch_to_device(stream(9, drawn), depth=3))
    assert drawn == [0]


def test_at_most_depth_batches_are_read_ahead():
    drawn = []
    for count, _ in enumerate(prefetch_to_device(stream(9, drawn), depth=2), start=1):
        assert len(drawn) <= count + 2
    assert len(drawn) == 9


def reusing(count):
    raw = np.zeros(1024 + 16, np.float32)
    first = (-raw.ctypes.data % 64) // 4
    buffer = raw[first : first + 1024]  # aligned to 64 bytes, so that JAX could take it as it is
    for value in range(count):
        buffer[:] = value
        yield buffer, {"batch": value + 1}


def test_producer_may_use_its_buffer_again():
    means = [float(chunk.feed.mean()) for chunk in prefetch_to_device(reusing(5), depth=3)]
    assert means == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("mode", Mode)
def test_producer_may_use_its_buffer_again_within_a_dispatch(mode):
    steps = 1 if mode is Mode.SINGLE else 3
    chunks = list(
        prefetch_to_device(reusing(7), lambda _: Plan(mode, steps, steps), is_compiled=True)
    )
    assert [chunk.steps for chunk in chunks][:2] == [steps, steps]
    means = [float(np.mean(chunk.batch(i))) for chunk in chunks for i in range(chunk.steps)]
    assert means == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_slow_producer_is_not_waited_for_through_a_whole_dispatch(monkeypatch):
    monkeypatch.setattr(_prefetch, "LONGEST", 0.0)
    chunks = prefetch_to_device(reusing(3), lambda _: Plan(Mode.LOOP, 3, 3), is_compiled=True)
    assert [chunk.steps for chunk in chunks] == [1, 1, 1]


def test_first_batch_is_shown_before_anything_is_planned():
    seen, planned = [], []

    def plan(drawn):
        planned.append((drawn, len(seen)))
        return Plan(Mode.LOOP, 2, 2)

    chunks = list(prefetch_to_device(reusing(4), plan, is_compiled=True, begin=seen.append))
    assert [(chunk.steps, chunk.size, chunk.cursors) for chunk in seen] == [
        (1, 1024, [{"batch": 1}])
    ]
    assert float(np.mean(seen[0].feed)) == 0.0
    assert [chunk.cursors[-1]["batch"] for chunk in chunks] == [2, 4]
    assert planned[0] == (0, 1)


def test_nothing_is_shown_of_an_empty_producer():
    seen = []
    assert list(prefetch_to_device(iter(()), begin=seen.append)) == seen == []


def test_wide_dtypes_are_narrowed_without_a_warning():
    (chunk,) = prefetch_to_device([((np.zeros(2), np.arange(2)), {})])
    assert [leaf.dtype for leaf in chunk.feed] == [jnp.float32, jnp.int32]


def test_arrays_on_the_device_are_taken_as_they_are():
    array = jnp.arange(3)
    with jax.transfer_guard("disallow"):
        (chunk,) = prefetch_to_device([(array, {})])
    assert chunk.feed.unsafe_buffer_pointer() == array.unsafe_buffer_pointer()
    assert chunk.size == 3


def test_exception_of_the_stream_passes():
    def broken():
        yield np.zeros(2), {}
        raise KeyError("label")

    with pytest.raises(KeyError, match="label"):
        list(prefetch_to_device(broken()))


def every_row(mode):
    return lambda _: Plan(mode, 1 if mode is Mode.SINGLE else 2, 4)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("kind", ["list", "array loader", "shuffled array loader"])
def test_a_number_that_does_not_fit_the_device_ends_the_run(mode, is_compiled, kind):
    ids = np.arange(12)
    ids[7] = 2**40
    if kind == "list":
        batches, where = [{"id": row} for row in ids.reshape(6, 2)], "batch 4 of epoch 1"
        epoch = as_source(batches).epoch(1)
    else:
        epoch = ArrayLoader({"id": ids}, 2, shuffle=kind.startswith("shuffled")).epoch(1)
        where = r"ArrayLoader\(arrays\)"
    with pytest.raises(DataError, match=rf"{where} with \w+\['id'\].* holds 1099511627776; "):
        list(prefetch_to_device(epoch, every_row(mode), is_compiled=is_compiled))


@pytest.mark.parametrize("shuffle", [True, False])
def test_very_large_integers_are_looked_at_as_they_come(monkeypatch, shuffle):
    monkeypatch.setattr(_array_loader, "MOST_LOOKED_AT", 8)
    ids = np.arange(12)
    chunks = prefetch_to_device(
        ArrayLoader(ids, 2, shuffle=shuffle).epoch(1), every_row(Mode.LOOP), is_compiled=True
    )
    rows = [chunk.batch(i).tolist() for chunk in chunks for i in range(chunk.steps)]
    assert sorted(np.concatenate(rows).tolist()) == ids.tolist()
    ids[10] = -(2**33)
    chunks = prefetch_to_device(
        ArrayLoader(ids, 2, shuffle=shuffle).epoch(1), every_row(Mode.LOOP), is_compiled=True
    )
    with pytest.raises(DataError, match="holds -8589934592"):
        list(chunks)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float32])
@pytest.mark.parametrize("kind", ["list", "array loader", "shuffled array loader"])
@pytest.mark.parametrize("is_compiled", [True, False])
def test_memory_that_nobody_has_written_is_never_cast(monkeypatch, dtype, kind, is_compiled):
    """A stack has room for 4 batches, and gets 3: what stands behind them is garbage."""
    empty = np.empty

    def garbage(shape, dtype=float, **options):
        made = empty(shape, dtype, **options)
        made.view(np.uint8)[...] = 0x7F  # floats near the largest, integers that do not fit
        return made

    rows = np.arange(12).astype(dtype)
    source = as_source(list(rows.reshape(6, 2)))
    if kind != "list":
        source = ArrayLoader(rows, 2, shuffle=kind.startswith("shuffled"))
    monkeypatch.setattr(np, "empty", garbage)
    chunks = prefetch_to_device(
        source.epoch(1), lambda _: Plan(Mode.LOOP, 3, 4), is_compiled=is_compiled
    )
    seen = [chunk.batch(i) for chunk in chunks for i in range(chunk.steps)]
    monkeypatch.undo()
    assert sorted(np.concatenate(seen).tolist()) == rows.tolist()
