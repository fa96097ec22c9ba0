"""Steps whose loss or gradient is not finite."""

import logging
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._inspect._replay import replay
from boltax.errors import CheckpointError, NonFiniteError
from dummies import Classifier, GuideRegressor, Linear, classes, classifier, line, loader, to_host

BAD = 6  # the step whose batch holds a NaN, counted from 1; an epoch has 4


def poisoned(bad: int | None = BAD, *, without: bool = False, batches: int = 8):
    """Batches of 8, one of them with a NaN, or left out."""
    x, y = (part.reshape(batches, 8, *part.shape[1:]).copy() for part in classes(8 * batches))
    if bad is not None and not without:
        x[bad - 1, 3, 1] = np.nan
    return [(x[i], y[i]) for i in range(batches) if not (without and i == bad - 1)]


def trainer_of(folder, policy, trainer_class=Classifier, log_every=50, **options):
    loop = bx.LoopOptions(on_nonfinite=policy, log_every=log_every)
    return classifier(folder, trainer_class, loop=loop, **options)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, to_host(left), to_host(right))


@pytest.mark.parametrize("log_every", [1, 3, 50])
def test_stop_names_the_step_and_keeps_the_state_from_before_it(tmp_path, log_every):
    trainer = trainer_of(tmp_path, "stop", log_every=log_every)
    with pytest.raises(NonFiniteError, match=rf"not finite at step {BAD} \(epoch 1, batch {BAD}\)"):
        trainer.train_model(poisoned(), num_epochs=2)
    before = trainer_of(tmp_path, "stop")
    before.train_model(poisoned(), num_epochs=2, max_steps=BAD - 1)
    assert trainer.run.step == BAD - 1
    assert_equal(trainer.state.params, before.state.params)
    assert_equal(trainer.state.opt_state, before.state.opt_state)
    assert_equal(trainer.state.batch_stats, before.state.batch_stats)


def test_a_stopped_run_goes_on_at_the_bad_step(tmp_path):
    folder = {"log_dir": str(tmp_path / "run"), "logger_type": "csv"}
    with pytest.raises(NonFiniteError):
        trainer_of(tmp_path, "stop", logger_params=folder).train_model(poisoned(), num_epochs=1)
    resumed = trainer_of(tmp_path, "skip", logger_params=folder)
    resumed.train_model(poisoned(), num_epochs=1, resume=True)
    through = trainer_of(tmp_path, "skip")
    through.train_model(poisoned(), num_epochs=1)
    assert resumed.run.step == 8
    assert_equal(resumed.state.params, through.state.params)
    assert resumed.run.history[-1]["train/loss"] == through.run.history[-1]["train/loss"]


def test_skip_leaves_the_step_out_of_state_and_metrics(tmp_path, caplog):
    trainer = trainer_of(tmp_path, "skip")
    trainer.train_model(poisoned(), num_epochs=1)
    without = trainer_of(tmp_path, "skip")
    without.train_model(poisoned(without=True), num_epochs=1)
    assert_equal(trainer.state.params, without.state.params)
    assert trainer.run.history[0]["train/loss"] == without.run.history[0]["train/loss"]
    assert (trainer.run.step, int(trainer.state.step)) == (8, 7)
    assert f"not finite at step {BAD} (epoch 1, batch {BAD}); its update is left out" in caplog.text


def test_continue_says_so_and_goes_on(tmp_path, caplog):
    trainer = trainer_of(tmp_path, "continue")
    trainer.train_model(poisoned(7), num_epochs=1)
    assert np.isnan(trainer.run.history[0]["train/loss"])
    assert "not finite at step 7 (epoch 1, batch 7); training goes on with it" in caplog.text


def test_finite_runs_are_the_same_under_every_policy(tmp_path, caplog):
    states = []
    for policy in ("stop", "skip", "continue"):
        # Adam would make a step of rounding, where a gradient is 0: of a bias before BatchNorm
        trainer = trainer_of(tmp_path, policy, optimizer_hparams={"optimizer": "sgd"})
        trainer.train_model(loader(shuffle=True), num_epochs=2)
        states.append(trainer.state.params)
    assert_equal(states[0], states[1])
    # Without the choice between two states the compiler may round in another order.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), states[0], states[2])
    assert "not finite" not in caplog.text


class NanGradient(Classifier):
    """A finite loss whose gradient is not: sqrt at 0."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        zero = sum(jnp.sum(p - jax.lax.stop_gradient(p)) for p in jax.tree.leaves(model.params))
        root = jax.lax.cond(jnp.all(batch[1] == 0), jnp.sqrt, lambda z: z, zero)
        return loss + root, metrics


def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is(tmp_path):
    batches = [(x, np.ones_like(y)) for x, y in poisoned(None)]
    batches[BAD - 1] = (batches[BAD - 1][0], np.zeros(8, np.int32))
    trainer = trainer_of(tmp_path, "stop", NanGradient)
    with pytest.raises(NonFiniteError, match=rf"step {BAD} (.|\n)*gradient\["):
        trainer.train_model(batches, num_epochs=1)


def test_steps_of_create_functions_are_watched_by_loss_and_parameters(tmp_path):
    x, y = line(32)
    batches = [(x[i : i + 8], y[i : i + 8].copy()) for i in range(0, 32, 8)]
    batches[2][1][0] = np.inf
    options = {"model_class": Linear, "exmp_input": x[:2]}
    trainer = trainer_of(tmp_path, "stop", GuideRegressor, **options)
    with pytest.raises(NonFiniteError, match="step 3 "):
        trainer.train_model(batches, num_epochs=1)
    assert int(trainer.state.step) == 2


def test_a_state_that_a_donating_step_has_spoilt_is_not_saved(tmp_path):
    class Donating(Classifier):
        def create_jitted_functions(self):
            train_step, eval_step = self.create_functions()
            self.train_step = jax.jit(train_step, donate_argnums=0)
            self.eval_step = jax.jit(eval_step)

    trainer = trainer_of(tmp_path, "stop", Donating)
    with pytest.raises(NonFiniteError, match="The state is not finite and not saved"):
        trainer.train_model(poisoned(), num_epochs=1)
    assert not Path(trainer.log_dir, "checkpoints", "resume").exists()


def test_debug_mode_stops_too(tmp_path):
    trainer = trainer_of(tmp_path, "stop", debug=True)
    with pytest.raises(NonFiniteError, match=f"step {BAD} "):
        trainer.train_model(poisoned(), num_epochs=1)
    assert int(trainer.state.step) == BAD - 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_host(trainer.state.params)))


def test_no_more_than_three_steps_are_stored_or_told_one_by_one(tmp_path, caplog):
    batches = [(np.full_like(x, np.nan), y) for x, y in poisoned()]
    trainer = trainer_of(tmp_path, "skip")
    with caplog.at_level(logging.WARNING, "boltax"):
        trainer.train_model([poisoned()[0], *batches], num_epochs=1)
    assert caplog.text.count("its update is left out") == 3
    assert len(list(Path(trainer.log_dir, "nonfinite").iterdir())) == 3


def test_a_stored_step_runs_again_to_the_primitive_and_the_line(tmp_path):
    trainer = trainer_of(tmp_path, "stop")
    with pytest.raises(NonFiniteError, match="boltax replay"):
        trainer.train_model(poisoned(), num_epochs=1)
    found = replay(trainer.log_dir, Classifier)
    assert f"step {BAD} (epoch 1, batch {BAD})" in found
    assert "The first NaN: invalid value (nan) encountered in" in found
    assert "dummies.py, line" in found


def test_replay_says_what_is_there_when_there_is_no_step(tmp_path):
    with pytest.raises(CheckpointError, match="holds no step that was not finite"):
        replay(tmp_path, Classifier)


def test_replay_refuses_a_damaged_step(tmp_path):
    trainer = trainer_of(tmp_path, "stop")
    with pytest.raises(NonFiniteError):
        trainer.train_model(poisoned(), num_epochs=1)
    folder = Path(trainer.log_dir, "nonfinite", str(BAD))
    (folder / "report.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is damaged: report.json has"):
        replay(folder, Classifier)
