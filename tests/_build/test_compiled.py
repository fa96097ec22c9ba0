"""The steps that the loop calls: compiled from pure ones, or those that an override has set."""

import jax.numpy as jnp
import numpy as np

from boltax._base._options import LoopOptions
from boltax._build._compiled import compile_for, steps_as_set
from boltax._progress._progress import Progress

REST = (LoopOptions(), None, np.ones(4))


def train_step(state, batch):
    return state + batch.sum(), {"loss": batch.mean()}


def eval_step(state, batch):
    return {"loss": batch.mean() + state}


def predict_step(state, batch):
    return batch * state


def compiled():
    return compile_for(
        train_step,
        eval_step,
        predict_step,
        loop=LoopOptions(),
        progress=Progress(enabled=False),
        where=lambda: "the start",
        size_of=None,
        example=np.ones(4),
    )


def test_compiled_steps_compute_what_the_pure_ones_do():
    steps, batch = compiled(), jnp.arange(4.0)
    state, metrics = steps.train_step(jnp.float32(1), batch)
    assert (float(state), float(metrics["loss"])) == (7.0, 1.5)
    assert float(steps.eval_step(jnp.float32(1), batch)["loss"]) == 2.5
    outputs = steps.predict(jnp.float32(2), np.int32(0), batch)
    assert outputs.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_compiled_steps_stay_where_nobody_has_set_others():
    steps = compiled()
    kept = steps_as_set(
        steps, steps.train_step, steps.eval_step, predict_step, LoopOptions(), None, np.ones(4)
    )
    assert kept is steps
    for made in (steps, None):
        own = steps_as_set(
            made, train_step, eval_step, predict_step, LoopOptions(), None, np.ones(4)
        )
        assert (own.train_step, own.eval_step, own.train.is_compiled) == (
            train_step,
            eval_step,
            False,
        )
