"""The forms in which several batches go to the device hold the same batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._chunks import (
    Chunk,
    Mode,
    Plan,
    Rows,
    batch_at,
    batch_of,
    one_of,
    stacked,
    stacked_form,
)

DATA = {"x": np.arange(24, dtype=np.float32).reshape(12, 2), "y": np.arange(12, dtype=np.int32)}
ORDER = np.array([7, 3, 11, 0, 5, 9, 1, 2, 10, 4, 8, 6], np.int32)
CURSORS = [{"epoch": 1, "batch": number} for number in (2, 3)]
BATCHES = [{name: x[rows] for name, x in DATA.items()} for rows in (ORDER[4:8], ORDER[8:])]


def rows():
    return Rows(jax.device_put(DATA), jnp.asarray(ORDER), jnp.int32(4), 4)


FEEDS = {  # the second and third batch of four, in every form of several
    "stack": (Mode.LOOP, lambda: jax.device_put(stacked(BATCHES, 3))),
    "rows": (Mode.LOOP, rows),
    "tuple": (Mode.UNROLLED, lambda: tuple(jax.device_put(BATCHES))),
}


@pytest.mark.parametrize("name", FEEDS)
def test_every_form_gives_the_same_batches(name):
    mode, make = FEEDS[name]
    chunk = Chunk(Plan(mode, 2, 3), make(), CURSORS, 4)
    assert chunk.steps == 2
    if not isinstance(chunk.feed, Rows):
        one = one_of(mode, chunk.feed)
        assert [leaf.shape[0] for leaf in jax.tree.leaves(one)] == [4, 4]
    for index, batch in enumerate(BATCHES):
        jax.tree.map(np.testing.assert_array_equal, chunk.batch(index), batch)
    forms = jax.tree.map(lambda form: (form.shape, form.dtype), chunk.form)
    assert forms == {"x": ((4, 2), np.float32), "y": ((4,), np.int32)}


def test_a_single_batch_is_what_it_is_or_the_first_of_the_rows():
    single = jax.device_put(BATCHES[0])
    assert batch_of(single) is single
    assert Chunk(Plan(), single, CURSORS[:1], 4).batch(0) is single
    of_rows = Chunk(Plan(), rows(), CURSORS[:1], 4).batch(0)
    jax.tree.map(np.testing.assert_array_equal, of_rows, BATCHES[0])
    assert one_of(Mode.SINGLE, single) is single


@pytest.mark.parametrize("name", ["stack", "rows"])
def test_a_batch_is_found_by_a_traced_index(name):
    feed = FEEDS[name][1]()
    found = jax.jit(batch_at)(feed, jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, found, BATCHES[1])


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_a_stack_has_room_for_more_batches_than_it_holds(place):
    feed = stacked(jax.tree.map(place, BATCHES), 5)
    assert jax.tree.map(np.shape, feed) == {"x": (5, 4, 2), "y": (5, 4)}
    assert jax.tree.map(lambda x: x.dtype, feed) == {"x": np.float32, "y": np.int32}
    for index, batch in enumerate(BATCHES):
        jax.tree.map(lambda f, b, i=index: np.testing.assert_array_equal(f[i], b), feed, batch)


def test_the_form_of_a_stack_is_told_before_it_is_made():
    form = stacked_form(BATCHES[0], 5)
    made = jax.eval_shape(lambda: stacked(jax.tree.map(jnp.asarray, BATCHES), 5))
    assert form == made
    assert stacked_form(whole := rows(), 5) is whole
