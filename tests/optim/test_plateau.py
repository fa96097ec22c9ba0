"""Tests of `boltax.optim._plateau`: a learning rate that falls when nothing improves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import boltax as bx
from boltax import optim
from boltax.errors import ConfigurationError, MetricsError, OptimizerError, UnknownNameError
from boltax.optim._plateau import first_evaluations, next_evaluations
from boltax.testing import assert_resumes_exactly
from dummies import Classifier, classifier, loader

PARAMS = {"w": jnp.asarray([1.0, -2.0])}
LOSSES = [1.0, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4]
PATIENT = {"name": "reduce_on_plateau", "factor": 0.5, "patience": 2}
FOLLOWING = {**PATIENT, "patience": 1, "monitor": ["val/acc", "max"]}


def update_of(tx: Any) -> Any:
    return jax.jit(lambda state, **extra: tx.update(PARAMS, state, PARAMS, **extra))


def hparams_of(schedule: Any, **more: Any) -> dict[str, Any]:
    return {"optimizer": "sgd", "lr": 0.1, "schedule": schedule, "gradient_clip": None, **more}


def test_it_is_the_transformation_of_optax_behind_the_optimizer() -> None:
    arguments = {"factor": 0.5, "patience": 2, "cooldown": 1, "accumulation_size": 2}
    tx = optim.build(hparams_of({"name": "reduce_on_plateau", **arguments}, momentum=0.9), None).tx
    plain = optax.chain(optax.sgd(0.1, momentum=0.9), optax.contrib.reduce_on_plateau(**arguments))
    states = [tx.init(PARAMS), plain.init(PARAMS)]
    update, update_plainly = update_of(tx), update_of(plain)
    for loss in [jnp.asarray(value) for value in LOSSES for _ in range(2)]:
        found, states[0] = update(states[0], value=loss)
        with jax.numpy_dtype_promotion("standard"):
            expected, states[1] = update_plainly(states[1], value=loss)
        np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
        scale = optax.tree.get(states[1], "scale")
        assert optim.learning_rate(states[0]) == pytest.approx(0.1 * scale)
    assert optim.learning_rate(states[0]) < 0.1


def test_warmup_comes_before_it() -> None:
    tx = optim.build(hparams_of(PATIENT, warmup=4), None).tx
    state, rates, update = tx.init(PARAMS), [], update_of(tx)
    for loss in [*LOSSES[:2], 0.4, 0.3, 0.3, 0.3, 0.3]:
        _, state = update(state, value=jnp.asarray(loss))
        rates.append(float(optim.learning_rate(state)))
    assert rates == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1, 0.05, 0.05])


def test_a_validation_counts_once_however_many_steps_follow_it() -> None:
    schedule = {**PATIENT, "monitor": ("val/loss", "min")}
    optimizer = optim.build(hparams_of(schedule), None)
    evaluations, state = first_evaluations(optimizer.metrics), optimizer.tx.init(PARAMS)
    rates, update = [], update_of(optimizer.tx)
    for loss in LOSSES[:6]:
        for _ in range(3):
            _, state = update(state, evaluations=evaluations)
        rates.append(float(optim.learning_rate(state)))
        evaluations = next_evaluations(evaluations, {"val/loss": loss})
    # Known: nothing, 1.0, 0.5, 0.5, 0.5 (twice no better: it falls), 0.5.
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])


def test_higher_is_better_where_that_is_asked_for() -> None:
    optimizer = optim.build(hparams_of(FOLLOWING), None)
    evaluations, state = first_evaluations(optimizer.metrics), optimizer.tx.init(PARAMS)
    rates, update = [], update_of(optimizer.tx)
    for accuracy in (0.5, 0.75, 0.75, 0.875):
        evaluations = next_evaluations(evaluations, {"val/acc": accuracy})
        _, state = update(state, evaluations=evaluations)
        rates.append(float(optim.learning_rate(state)))
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05])


class Stuck(Classifier):
    """Its validation never improves, and its training does."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {**metrics, "acc": metrics["acc"] if train else jnp.zeros(())}


def stuck(folder: Any, **options: Any) -> Any:
    callbacks = [bx.callbacks.LearningRateMonitor()]
    return classifier(
        folder, Stuck, optimizer_hparams=hparams_of(FOLLOWING), callbacks=callbacks, **options
    )


def test_the_loop_tells_the_optimizer_each_validation_without_compiling_again(tmp_path) -> None:
    trainer = stuck(tmp_path, loop=bx.LoopOptions(max_recompiles=0))
    trainer.train_model(loader(32), loader(16), num_epochs=4)
    assert [row["lr"] for row in trainer.run.history] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert trainer.state.evaluations.number == 4


def test_it_resumes_bitwise() -> None:
    def make_trainer(log_dir: str) -> Any:
        return stuck(None, logger_params={"log_dir": log_dir, "logger_type": "csv"})

    assert_resumes_exactly(
        make_trainer, lambda: [loader(32), loader(16)], num_epochs=3, interrupt_at=5
    )


def test_a_run_without_what_is_followed_is_refused_before_training(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="follow val/acc, but no val_loader"):
        stuck(tmp_path).train_model(loader(32), num_epochs=1)
    schedule = {**FOLLOWING, "monitor": ("val/f1", "max")}
    trainer = classifier(tmp_path, optimizer_hparams=hparams_of(schedule))
    with pytest.raises(MetricsError, match=r"val/acc, val/loss; expected val/f1"):
        trainer.train_model(loader(32), loader(16), num_epochs=1)


def test_the_training_loss_has_to_be_given() -> None:
    state = bx.TrainState.create(
        apply_fn=None, params=PARAMS, tx=optim.build(hparams_of(PATIENT), None).tx
    )
    with pytest.raises(OptimizerError, match=r"expected value too.*loss=loss"):
        state.apply_gradients(grads=PARAMS)


@pytest.mark.parametrize(
    ("schedule", "error", "match"),
    [
        ({"patienc": 3}, UnknownNameError, "Did you mean 'patience'"),
        (
            {"monitor": "val/loss"},
            OptimizerError,
            r"monitor='val/loss' .*\(\"val/loss\", \"min\"\)",
        ),
        ({"monitor": ("train/loss", "min")}, OptimizerError, "expected a metric of the validation"),
        ({"monitor": ("val/acc", "max"), "rtol": 0.1}, OptimizerError, 'Write "atol"'),
        ({"factor": 2.0}, ValueError, "Factor must be in the range"),
    ],
)
def test_bad_arguments_say_what_to_write(schedule: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        optim.check_hparams({"schedule": {"name": "reduce_on_plateau", **schedule}})
