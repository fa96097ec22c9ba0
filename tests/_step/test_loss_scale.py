"""The scale of the loss: its rules, and steps that overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._step import _loss_scale
from boltax._step._loss_scale import first_loss_scale
from boltax.errors import NonFiniteError
from dummies import Classifier, Mlp, Plain, classes, classifier, to_host

FP16 = {"precision": "fp16", "log_every": 2}


def scales(overflows):
    """The scale after each of some steps."""
    scale, found = first_loss_scale(), []
    for is_overflow in overflows:
        scale = scale.after(jnp.bool_(is_overflow))
        found.append(float(scale.scale))
    return found, scale


def test_it_is_halved_by_an_overflow_and_doubled_after_enough_good_steps(monkeypatch):
    monkeypatch.setattr(_loss_scale, "DOUBLED_AFTER", 3)
    found, last = scales([0, 0, 1, 0, 0, 0, 0, 0, 0, 1])
    assert found == [2**n for n in (15, 15, 14, 14, 14, 15, 15, 15, 16, 15)]
    assert (int(last.good_steps), int(last.overflows)) == (0, 2)


def test_it_stays_between_one_and_its_largest_value(monkeypatch):
    monkeypatch.setattr(_loss_scale, "DOUBLED_AFTER", 1)
    assert scales([1] * 20)[0][-1] == 1
    assert scales([0] * 20)[0][-1] == _loss_scale.LARGEST


class Steep(Classifier):
    """A loss whose gradients overflow float16 while the scale is at its first value."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return 20 * loss.mean(), metrics


@pytest.mark.parametrize(
    ("policy", "debug"), [("stop", False), ("skip", False), ("continue", False), ("stop", True)]
)
def test_an_overflow_is_left_out_and_does_not_end_the_run(tmp_path, policy, debug):
    loop = bx.LoopOptions(on_nonfinite=policy, **FP16)
    trainer = classifier(tmp_path, Steep, Plain, loop=loop, debug=debug)
    first = to_host(trainer.state.params)
    trainer.init_optimizer(1, 8)
    state, metrics = trainer.train_step(trainer.state, jax.device_put(classes(4)))
    assert not np.isfinite(metrics["grad_norm"])
    assert (int(state.step), float(state.loss_scale.scale)) == (0, 2.0**14)
    jax.tree.map(np.testing.assert_array_equal, to_host(state.params), first)
    trainer.train_model([classes(4)] * 8, num_epochs=1)
    assert trainer.run.nonfinite == 0
    left_out = int(trainer.state.loss_scale.overflows)
    assert 0 < left_out < 8
    assert int(trainer.state.step) == 8 - left_out
    row = trainer.run.history[-1]
    assert np.isfinite(row["train/grad_norm"])
    assert (
        row["train/loss_scale"] == float(trainer.state.loss_scale.scale) == 2.0 ** (15 - left_out)
    )


def test_the_scale_itself_changes_nothing(tmp_path):
    trainer = classifier(tmp_path, model_class=Plain, loop=bx.LoopOptions(**FP16))
    trainer.init_optimizer(1, 1)
    batch = jax.device_put(classes(16))
    loss, grads = trainer._made.loss_steps.gradients(trainer.state, batch)
    without = trainer.state.replace(loss_scale=None)
    plain_loss, plain = trainer._made.loss_steps.gradients(without, batch)
    assert float(loss) == float(plain_loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4), grads, plain)


def test_small_gradients_survive_by_the_scale(tmp_path):
    class Small(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return 1e-7 * loss.mean(), metrics

    trainer = classifier(tmp_path, Small, Plain, loop=bx.LoopOptions(**FP16))
    trainer.init_optimizer(1, 1)
    batch = jax.device_put(classes(16))
    scaled = trainer._made.loss_steps.gradients(trainer.state, batch)[1]
    lost = trainer._made.loss_steps.gradients(trainer.state.replace(loss_scale=None), batch)[1]
    assert np.abs(scaled["Dense_1"]["kernel"]).max() > 0
    np.testing.assert_array_equal(lost["Dense_0"]["kernel"], 0)


def test_a_loss_that_is_not_finite_is_no_overflow(tmp_path):
    bad = classes(8)
    bad[0][0] = np.nan
    trainer = classifier(tmp_path, loop=bx.LoopOptions(**FP16))
    with pytest.raises(NonFiniteError, match=r"not finite at step 2"):
        trainer.train_model([classes(8), bad], num_epochs=1)
    assert int(trainer.state.loss_scale.overflows) == 0


def test_an_average_leaves_overflows_out_too(tmp_path):
    loop = bx.LoopOptions(ema=0.5, **FP16)
    trainer = classifier(tmp_path, Steep, Plain, loop=loop)
    trainer.train_model([classes(4)] * 8, num_epochs=1)
    updates = int(trainer.state.step)
    assert 0 < updates < 8
    assert float(trainer.state.ema.total) == pytest.approx(1 - 0.5**updates)


def test_statistics_of_a_step_that_overflows_are_left_out(tmp_path):
    trainer = classifier(tmp_path, Steep, Mlp, loop=bx.LoopOptions(**FP16))
    trainer.init_optimizer(1, 1)
    before = to_host(trainer.state.batch_stats)
    huge = trainer.state.loss_scale._replace(scale=jnp.float32(2.0**24))
    state, _ = trainer.train_step(
        trainer.state.replace(loss_scale=huge), jax.device_put(classes(8))
    )
    assert int(state.loss_scale.overflows) == 1
    jax.tree.map(np.testing.assert_array_equal, to_host(state.batch_stats), before)
