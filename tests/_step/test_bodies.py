"""The random keys of evaluation and prediction: of the seed and the place in the data alone."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.data import ArrayLoader
from boltax.tune import Population
from dummies import Classifier, Linear, classes, classifier, line

SEED = 42


class Noisy(Classifier):
    """With a number that is drawn for each example."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {**metrics, "noise": jax.random.uniform(model.rng("noise"), loss.shape)}

    def predict_function(self, model, batch):
        return jax.random.uniform(model.rng("sample"), (len(batch[1]), 2))


class NoisyGuide(bx.TrainerModule):
    """Steps of its own, which draw from the state's key; training splits that key."""

    def create_functions(self):
        def mse(params, state, batch):
            return ((state.apply_fn({"params": params}, batch[0]) - batch[1]) ** 2).mean()

        def train_step(state, batch):
            rng, own = jax.random.split(state.rng)
            loss, grads = jax.value_and_grad(mse)(state.params, state, batch)
            noise = jax.random.uniform(own)
            return state.apply_gradients(grads=grads, rng=rng), {"loss": loss, "noise": noise}

        def eval_step(state, batch):
            noise = jax.random.uniform(state.rng, (len(batch[1]),))
            return {"loss": mse(state.params, state, batch), "noise": noise}

        return train_step, eval_step


def folded(key, name):
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def batch_key(phase, place, seed=SEED):
    root = jax.random.split(jax.random.key(seed))[0]
    return jax.random.fold_in(folded(root, phase), place)


def drawn(phase, place, name, shape):
    """What a model draws first under a name, for one batch of a phase."""
    stream = folded(folded(batch_key(phase, place), phase), f"rng/{name}")
    return jax.random.uniform(jax.random.fold_in(stream, 0), shape)


def noise_of(sizes):
    return np.mean(
        np.concatenate([drawn("eval", i, "noise", (size,)) for i, size in enumerate(sizes)])
    )


def guide(folder, **options):
    settings = {
        "optimizer_hparams": {"lr": 1e-2, "schedule": "constant"},
        "exmp_input": [line(4)[0]],
        "logger_params": {"base_log_dir": str(folder), "logger_type": "csv"},
        "enable_progress_bar": False,
    }
    return NoisyGuide(Linear, {}, **{**settings, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"loop": bx.LoopOptions(steps_per_execution=1)},
        {"loop": bx.LoopOptions(steps_per_execution=3)},
        {"loop": bx.LoopOptions(steps_per_execution="auto")},
        {"debug": True},
    ],
    ids=lambda options: str(next(iter(options.values()))),
)
def test_a_batch_of_an_evaluation_has_the_key_of_its_place_however_it_is_sent_off(
    tmp_path, options
):
    trainer = classifier(tmp_path, Noisy, seed=SEED, **options)
    for _ in range(2):
        metrics = trainer.eval_model(ArrayLoader(classes(44), 8))  # the last one is filled up
        np.testing.assert_allclose(metrics["noise"], noise_of([8] * 5 + [4]), rtol=1e-6)


def test_no_step_of_training_moves_the_keys_of_a_validation(tmp_path):
    trainer = classifier(tmp_path, Noisy, seed=SEED)
    data = ArrayLoader(classes(20), 8)
    trainer.train_model(ArrayLoader(classes(32), 8), data, num_epochs=3)
    losses, noise = ([row[f"val/{n}"] for row in trainer.run.history] for n in ("loss", "noise"))
    np.testing.assert_allclose(noise, [noise_of([8, 8, 4])] * 3, rtol=1e-6)
    assert len(set(noise)) == 1 < len(set(losses))
    assert len({row["train/noise"] for row in trainer.run.history}) == 3
    assert trainer.eval_model(data, "test/")["test/noise"] == noise[0]


def test_a_resumed_run_validates_with_the_same_keys(tmp_path):
    data, options = ArrayLoader(classes(20), 8), {"logger_params": {"log_dir": str(tmp_path)}}
    classifier(tmp_path, Noisy, **options).train_model(data, data, num_epochs=1)
    resumed = classifier(tmp_path, Noisy, **options)
    resumed.train_model(data, data, num_epochs=2, resume=True)
    first, second = (row["val/noise"] for row in resumed.run.history)
    assert first == second


def test_steps_of_a_user_find_the_key_of_the_batch_in_the_state_whatever_training_made_of_it(
    tmp_path,
):
    trainer, data = guide(tmp_path), ArrayLoader(line(20), 8)
    wanted = [jax.random.uniform(batch_key("eval", i), (n,)) for i, n in enumerate([8, 8, 4])]
    trainer.train_model(ArrayLoader(line(32), 8), data, num_epochs=3)
    noise = [row["val/noise"] for row in trainer.run.history]
    np.testing.assert_allclose(noise, [np.mean(np.concatenate(wanted))] * 3, rtol=1e-6)
    assert len(set(noise)) == 1
    assert len({row["train/noise"] for row in trainer.run.history}) == 3
    loaded = NoisyGuide.load_from_checkpoint(trainer.log_dir)
    assert loaded.eval_model(data)["noise"] == noise[0]


@pytest.mark.parametrize("options", [{}, {"debug": True}], ids=["compiled", "debug"])
def test_each_batch_of_a_prediction_draws_other_numbers_and_the_same_again(tmp_path, options):
    trainer = classifier(tmp_path, Noisy, seed=SEED, **options)
    data = ArrayLoader(classes(100), 10)
    samples = trainer.predict_model(data)
    wanted = [drawn("predict", place, "sample", (10, 2)) for place in range(10)]
    np.testing.assert_array_equal(samples, np.concatenate(wanted))
    assert len(np.unique(samples)) == 200
    np.testing.assert_array_equal(trainer.predict_model(data), samples)
    assert len(np.unique(trainer.predict_model(ArrayLoader(classes(100), 32)))) == 200


def test_a_prediction_after_training_draws_what_it_drew_before(tmp_path):
    trainer = classifier(tmp_path, Noisy)
    data = ArrayLoader(classes(20), 8)
    before = trainer.predict_model(data)
    trainer.train_model(data, num_epochs=1)
    np.testing.assert_array_equal(trainer.predict_model(data), before)


def test_a_single_batch_is_predicted_with_the_key_of_the_place_that_is_named(tmp_path):
    trainer = classifier(tmp_path, Noisy, seed=SEED)
    batch = classes(10)
    for place in (0, 3):
        wanted = drawn("predict", place, "sample", (10, 2))
        np.testing.assert_array_equal(trainer.predict_batch(batch, place), wanted)
    np.testing.assert_array_equal(trainer.predict_batch(batch), trainer.predict_batch(batch, 0))


def test_the_keys_of_a_population_are_those_of_its_single_runs(tmp_path):
    data, folder = ArrayLoader(classes(20), 8), tmp_path / "single"
    population = Population(
        classifier(tmp_path, Noisy), [{"seed": 3}, {"seed": 4}], members_per_step=2
    )
    population.train_model(data, data, num_epochs=2)
    for seed in (3, 4):
        single = classifier(folder, Noisy, seed=seed)
        single.train_model(data, data, num_epochs=2)
        own = [row["val/noise"] for row in population.table.history if row["member"] == seed - 3]
        np.testing.assert_allclose(own, [row["val/noise"] for row in single.run.history], rtol=1e-6)
        assert own[0] == own[1]


@pytest.mark.parametrize("size", [1, 2])
def test_a_population_whose_steps_change_the_key_validates_with_that_of_the_seed(tmp_path, size):
    data = ArrayLoader(line(20), 8)
    population = Population(
        guide(tmp_path), [{"seed": seed} for seed in range(3)], members_per_step=size
    )
    population.train_model(data, data, num_epochs=2)
    for row in population.table.history:
        keys = [batch_key("eval", place, row["member"]) for place in range(3)]
        wanted = [jax.random.uniform(key, (n,)) for key, n in zip(keys, [8, 8, 4], strict=True)]
        np.testing.assert_allclose(row["val/noise"], jnp.concatenate(wanted).mean(), rtol=1e-6)
