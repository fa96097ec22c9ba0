"""What is compiled around the steps: copies, rows of members, accumulators; steps on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._base._chunks import Chunk, Plan
from boltax._step._bodies import Training
from boltax._step._steps import (
    compile_members,
    compile_per_member,
    compile_steps,
    host_steps,
)
from boltax.metrics._accumulate import Metrics, SavedMetrics, compute

CHUNK = Chunk(Plan(), np.arange(4, dtype=np.float32), [{"epoch": 1, "batch": 1}], 4)


def train_step(state, batch):
    return state + batch.sum(), {"loss": batch}


def eval_step(state, batch):
    return {"loss": (batch - state) ** 2}


def steps(make, **options):
    return make(train_step, eval_step, lambda state, batch: state * batch, **options)


EACH = pytest.mark.parametrize(
    "make", [compile_steps, lambda *f: host_steps(*f, on_nonfinite="continue")], ids=["jit", "host"]
)


@EACH
def test_a_step_trains_counts_and_accumulates(make):
    made, state = steps(make), jnp.float32(1)
    metrics = made.empty_train(state, CHUNK, None)
    for _ in range(2):
        (state, metrics), is_bad = made.train((), Training(state, metrics), CHUNK)
        assert not is_bad
    assert float(state) == 1 + 2 * 6
    assert compute(metrics) == {"loss": 1.5}
    assert (int(metrics.examples), int(metrics.batches)) == (8, 2)


@EACH
def test_predictions_and_the_users_own_steps_are_those_of_the_functions(make):
    made, batch = steps(make), jnp.asarray(CHUNK.feed)
    assert made.predict(jnp.float32(2), np.int32(0), batch).tolist() == [0, 2, 4, 6]
    state, metrics = made.train_step(jnp.float32(2), batch)
    assert (float(state), metrics["loss"].tolist()) == (8, [0, 1, 2, 3])
    assert made.eval_step(jnp.float32(2), batch)["loss"].tolist() == [4, 1, 0, 1]


@EACH
def test_accumulators_go_on_from_those_of_a_checkpoint(make):
    made, state = steps(make), jnp.float32(0)
    first = made.empty_train(state, CHUNK, None)
    (state, first), _ = made.train((), Training(state, first), CHUNK)
    saved = SavedMetrics([np.asarray(leaf) for leaf in jax.tree.leaves(first)])
    again = made.empty_train(state, CHUNK, saved)
    (_, metrics), _ = made.train((), Training(state, again), CHUNK)
    assert isinstance(metrics, Metrics)
    assert int(metrics.examples) == 8
    assert compute(metrics) == {"loss": 1.5}


def test_members_take_their_steps_together():
    made, state = steps(compile_steps, members=3), jnp.arange(3, dtype=jnp.float32)
    metrics = made.empty_train(state, CHUNK, None)
    (state, metrics), is_bad = made.train((), Training(state, metrics), CHUNK)
    assert state.tolist() == [6, 7, 8]
    assert is_bad.shape == metrics.batches.shape == (3,)


def test_rows_of_members_are_stacked_gathered_taken_and_chosen():
    rows = compile_members()
    pair = rows.stack({"w": jnp.float32(1)}, {"w": jnp.float32(2)})
    assert pair["w"].tolist() == [1, 2]
    both = rows.gather((pair, {"w": jnp.array([3.0, 4.0])}), np.array([3, 0, 2]))
    assert both["w"].tolist() == [4, 1, 3]
    assert rows.one(both, np.int32(2))["w"].tolist() == 3
    no = jnp.zeros((3, 2))
    chosen = rows.choose(np.array([True, False, True]), jnp.ones((3, 2)), no)
    assert chosen.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert no.is_deleted()  # its memory is used again
    assert compile_per_member(jnp.sum)(jnp.ones((3, 2))).tolist() == [2, 2, 2]
