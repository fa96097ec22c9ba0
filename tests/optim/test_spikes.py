"""Spikes of the loss: when one is one, what is left out, and how it is named."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.errors import UnknownNameError
from boltax.metrics._occurrences import MOST, Occurrences
from boltax.optim import _spikes, build
from boltax.optim._spikes import number_of_spikes, watching_spikes
from boltax.testing import assert_resumes_exactly
from boltax.tune import Population
from dummies import Linear, classifier, line, to_host

SGD = {"optimizer": "sgd", "lr": 0.01, "schedule": "constant", "gradient_clip": None}


class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch[0]) - batch[1]) ** 2).mean(), {}


@pytest.fixture
def soon(monkeypatch):
    """A level that is known after four steps."""
    monkeypatch.setattr(_spikes, "STEPS", 4)


def data(*spoiled, steps=9):
    """Batches of one example; those of these numbers, from 1 on, are far off."""
    inputs, targets = (np.ones((steps, 4), np.float32), np.full((steps, 1), 3, np.float32))
    targets[[number - 1 for number in spoiled]] = 1e4
    return bx.data.ArrayLoader((inputs, targets), 1)


def make(folder, policy="skip", **options):
    settings = {
        "model_class": Linear,
        "optimizer_hparams": {**SGD, "on_spike": policy},
        "exmp_input": tuple(part[:4] for part in line()),
    }
    return classifier(folder, Regressor, **{**settings, **options})


def by_hand(losses, window):
    """Mean, mean squared distance and spikes, by the definition."""
    mean, square, spikes = 0.0, 0.0, []
    for number, loss in enumerate(losses):
        limit = mean + 6 * max(np.sqrt(square), 0.01 * abs(mean)) if number >= window else np.inf
        if loss > limit:
            spikes.append(number)
        value, share = min(loss, limit), 1 / min(number + 1, window)
        distance = value - mean
        mean, square = mean + share * distance, (1 - share) * (square + share * distance**2)
    return mean, square, spikes


def test_a_spike_is_six_deviations_above_the_level():
    rng = np.random.default_rng(0)
    losses = 2 + 0.1 * rng.normal(size=150)
    losses[[50, 120, 130]] = 3.0, 9.0, 2.2
    losses[140:] = 6.0
    tx = watching_spikes(optax.with_extra_args_support(optax.sgd(0.1)), "skip")
    params = {"w": jnp.ones(2)}
    update = jax.jit(lambda state, loss: tx.update(params, state, params, value=loss))
    state, skipped = tx.init(params), []
    for number, loss in enumerate(losses):
        updates, state = update(state, jnp.float32(loss))
        if not np.asarray(updates["w"]).any():
            skipped.append(number)
    mean, square, spikes = by_hand(losses.astype(np.float32), 100)
    assert skipped == spikes
    assert {120, 140} <= {*spikes}
    assert not {50, 130} & {*spikes}
    assert int(state.number) == len(spikes)
    np.testing.assert_allclose([state.mean, state.square], [mean, square], rtol=1e-4)


def test_a_loss_that_is_not_finite_tells_nothing():
    tx = watching_spikes(optax.with_extra_args_support(optax.sgd(0.1)), "warn")
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    _, after = tx.update(params, state, params, value=jnp.nan)
    assert (int(after.steps), int(after.number), float(after.mean)) == (0, 0, 0)


@pytest.mark.parametrize("fused", [1, 3])
def test_its_update_is_left_out_and_its_batch_is_named(tmp_path, soon, caplog, fused):
    loop = bx.LoopOptions(log_every=4, steps_per_execution=fused)
    spoiled, clean = make(tmp_path, loop=loop), make(tmp_path, loop=loop)
    with caplog.at_level(logging.WARNING, "boltax"):
        spoiled.train_model(data(6, 9), num_epochs=1)
    told = [r.getMessage() for r in caplog.records if "jumped" in r.getMessage()]
    assert [text.split(" at ")[1] for text in told] == [
        "step 6 (epoch 1, batch 6); that update is left out.",
        "step 9 (epoch 1, batch 9); that update is left out.",
    ]
    clean.train_model(data(steps=7), num_epochs=1)
    jax.tree.map(
        np.testing.assert_array_equal, to_host(spoiled.state.params), to_host(clean.state.params)
    )
    assert spoiled.history["train/loss_spikes"] == [2]
    assert int(spoiled.state.step) == 9


def test_a_warning_changes_nothing(tmp_path, soon, caplog):
    warned, plain = make(tmp_path, "warn"), make(tmp_path, None)
    for trainer in (warned, plain):
        trainer.train_model(data(6), num_epochs=1)
    assert "training goes on with it" in caplog.text
    jax.tree.map(
        np.testing.assert_array_equal, to_host(warned.state.params), to_host(plain.state.params)
    )
    assert number_of_spikes(plain.state.opt_state) is None
    assert "train/loss_spikes" not in plain.history[-1]


def test_a_run_with_spikes_resumes_bitwise(tmp_path, soon):
    def run(folder):
        return make("unused", logger_params={"log_dir": str(folder), "logger_type": "csv"})

    assert_resumes_exactly(run, lambda: [data(6, 8)], interrupt_at=7, folder=tmp_path)


def test_members_skip_their_own(tmp_path, soon):
    members = [{"lr": 0.01}, {"lr": 0.02}]
    population = Population(make(tmp_path / "many"), members, members_per_step=2)
    population.train_model(data(6), num_epochs=1)
    single = make(tmp_path / "one", optimizer_hparams={**SGD, "lr": 0.02, "on_spike": "skip"})
    single.train_model(data(6), num_epochs=1)
    own = population.members[1].metrics
    assert own["train/loss_spikes"] == single.history[-1]["train/loss_spikes"] == 1
    assert own["train/loss"] == pytest.approx(single.history[-1]["train/loss"], rel=1e-5)


def test_occurrences_keep_the_first_steps():
    parts = [Occurrences.at(jnp.int32(step), jnp.bool_(step % 2)) for step in range(30)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    assert int(whole.compute()) == 15
    assert whole.known() == list(range(1, 2 * MOST, 2))


def test_other_policies_are_refused():
    with pytest.raises(UnknownNameError, match=r"on_spike 'skp'.*Did you mean 'skip'"):
        build({"on_spike": "skp"}, 10)
    assert "skip on loss spikes" in build({"on_spike": "skip"}, 10).describe
