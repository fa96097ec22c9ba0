"""One step and several: the same results, in the program of each form, on a step made by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._chunks import stacked
from boltax._step._bodies import Training
from boltax._step._forms import loop, single, train_loop, unrolled
from boltax.metrics._accumulate import compute, empty_like, extend, pack, start, unpack

BATCHES = [np.array([float(i), float(i) + 1], np.float32) for i in range(1, 8)]
BAD = np.array([np.nan, 1.0], np.float32)


def body(constants, carry, batch):
    """Adds a batch to a sum, and tells the mean of the batch."""
    return carry + batch.sum() * constants, batch.mean()


def test_several_steps_are_what_single_ones_are():
    one = jax.jit(partial(single, body))
    carry, outputs = jnp.float32(0), []
    for batch in BATCHES[:3]:
        carry, output = one(jnp.float32(2), carry, batch)
        outputs.append(output)
    assert float(carry) == 2 * sum(float(batch.sum()) for batch in BATCHES[:3])
    together = jax.jit(partial(unrolled, body))(jnp.float32(2), jnp.float32(0), tuple(BATCHES[:3]))
    assert (float(together[0]), together[1].tolist()) == (float(carry), jnp.stack(outputs).tolist())


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_loop_does_as_many_steps_as_it_is_told(count):
    feed = stacked(BATCHES[:5], 5)
    step = jax.jit(partial(loop, body))
    carry, outputs = step(jnp.float32(1), jnp.float32(0), jnp.int32(count), feed)
    done = BATCHES[:count]
    assert float(carry) == sum(float(batch.sum()) for batch in done)
    assert outputs[:count].tolist() == [batch.mean() for batch in done]
    assert outputs.shape == (5,)


def training(is_stopping):
    """A step of training: the state is a sum, and a batch that is not finite is bad."""

    def step(_, carry, batch):
        new = extend(carry.metrics, start({"loss": batch}, len(batch)))
        is_bad = ~jnp.isfinite(batch).all()
        is_left_out = is_bad & is_stopping
        noted = carry.metrics.replace(left_out=carry.metrics.left_out + 1)
        taken = Training(carry.state + batch.sum(), new)
        kept = Training(carry.state, noted)
        return jax.tree.map(lambda a, b: jnp.where(is_left_out, a, b), kept, taken), is_bad

    return step


def trained(batches, *, every, until_due, count, capacity=7, is_stopping=False):
    plain = training(False) if is_stopping else None
    many = jax.jit(partial(train_loop, plain, every, training(is_stopping)))
    empty = empty_like(start({"loss": jnp.zeros(2)}, 2))
    carry = Training(jnp.float32(0), empty)
    due = () if until_due is None else jnp.int32(until_due)
    carry, (are_bad, ended) = many(due, carry, jnp.int32(count), stacked(batches, capacity))
    number = int(ended.number)
    rows = unpack(jax.device_get(jax.vmap(pack)(ended.metrics)), empty)[:number]
    return carry, are_bad.tolist()[:count], [compute(row)["loss"] for row in rows]


def test_intervals_end_within_a_loop_where_they_are_due():
    carry, are_bad, means = trained(BATCHES, every=3, until_due=2, count=7)
    assert float(carry.state) == sum(float(batch.sum()) for batch in BATCHES)
    assert are_bad == [False] * 7
    # by hand: batches 1 to 2, and 3 to 5; 6 and 7 are of an interval that goes on
    assert means == [pytest.approx((1.5 + 2.5) / 2), pytest.approx((3.5 + 4.5 + 5.5) / 3)]
    assert compute(carry.metrics)["loss"] == pytest.approx((6.5 + 7.5) / 2)
    assert int(carry.metrics.batches) == 2


def test_no_interval_ends_where_none_is_due():
    carry, _, means = trained(BATCHES, every=3, until_due=None, count=4)
    assert means == []
    assert compute(carry.metrics)["loss"] == pytest.approx((1.5 + 2.5 + 3.5 + 4.5) / 4)


@pytest.mark.parametrize("bad", [0, 2, 6])
def test_a_bad_step_ends_the_loop_with_the_state_before_it(bad):
    batches = [*BATCHES[:bad], BAD, *BATCHES[bad + 1 :]]
    carry, are_bad, means = trained(batches, every=2, until_due=2, count=7, is_stopping=True)
    assert float(carry.state) == sum(float(batch.sum()) for batch in BATCHES[:bad])
    assert are_bad == [index == bad for index in range(7)]
    assert len(means) == bad // 2
    assert np.isfinite(means).all()
    assert int(carry.metrics.left_out) == 7 - bad
