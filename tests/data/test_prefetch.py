"""Batches on the device: ahead of use, with their own cursors, and with memory of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._chunks import Mode, Plan
from boltax.data import _prefetch
from boltax.data._prefetch import prefetch_to_device


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
