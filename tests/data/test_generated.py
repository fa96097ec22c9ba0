"""Batches that are made inside the compiled step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.data import Generated
from boltax.errors import ConfigurationError, DataError
from boltax.testing import assert_resumes_exactly
from boltax.tune import Population
from dummies import Linear, classifier
from tune_dummies import SGD


def sample(key, batch_size):
    inputs = jax.random.normal(key, (batch_size, 4))
    return inputs, inputs.sum(-1, keepdims=True)


class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        inputs, targets = batch
        return ((model(inputs) - targets) ** 2).mean(-1), {"first": inputs[:, 0]}


def loader(**options):
    return Generated(sample, 8, **{"num_batches": 6, "seed": 3, **options})


def make(folder, **options):
    params = {"log_dir": str(folder), "logger_type": "none"}
    example = next(iter(loader()))
    settings = {"model_class": Linear, "exmp_input": example, "logger_params": params}
    settings["optimizer_hparams"] = {**SGD, "warmup": 0}
    return classifier("unused", Regressor, **{**settings, **options})


def by_hand(epoch, number):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), epoch), number)
    return sample(key, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trainer = make(tmp_path_factory.mktemp("generated") / "run")
    trainer.train_model(loader(), loader(num_batches=2, seed=9), num_epochs=2)
    return trainer


def test_batches_follow_from_seed_epoch_and_number(trained):
    firsts = [[by_hand(epoch, n)[0][:, 0] for n in range(6)] for epoch in (1, 2)]
    found = [row["train/first"] for row in trained.run.history]
    assert found == pytest.approx([float(jnp.stack(each).mean()) for each in firsts], abs=1e-6)
    for number, batch in enumerate(loader()):
        inputs, targets = jax.device_get(by_hand(1, number))
        np.testing.assert_array_equal(batch[0], inputs)
        np.testing.assert_allclose(batch[1], targets, atol=1e-6)  # the sum in another order


def test_they_train_like_the_same_batches_from_the_host(tmp_path, trained):
    def stream():
        for epoch in (1, 2):
            for number in range(6):
                yield jax.device_get(by_hand(epoch, number))

    trainer = make(tmp_path, loop=bx.LoopOptions(steps_per_epoch=6))
    trainer.train_model(stream(), num_epochs=2)
    left, right = (jax.device_get(each.state.params) for each in (trainer, trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), left, right)


@pytest.mark.parametrize("options", [{"debug": True}, {"fused": 4}, {"parallel": "data"}], ids=str)
def test_every_way_to_send_them_gives_the_same(tmp_path, trained, options):
    fused = options.pop("fused", 1)
    trainer = make(tmp_path, loop=bx.LoopOptions(steps_per_execution=fused), **options)
    trainer.train_model(loader(), num_epochs=2)
    left, right = (jax.device_get(each.state.params) for each in (trainer, trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), left, right)


def test_a_stream_without_end_goes_on_exactly():
    assert_resumes_exactly(
        make,
        lambda: [loader(num_batches=None)],
        num_epochs=1,
        max_steps=7,
        interrupt_at=3,
    )


def test_members_train_on_them(tmp_path, trained):
    population = Population(make(tmp_path), [{"seed": 42}, {"seed": 1}], members_per_step=2)
    validation = loader(num_batches=2, seed=9)
    table = population.train_model(loader(), validation, num_epochs=2)
    best = trained.run.best
    assert table[0]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-4)


def test_outputs_are_predicted_for_them(trained):
    outputs = trained.predict_model(loader(num_batches=2))
    assert outputs.shape == (16, 1)


def test_what_cannot_be_is_told():
    for wrong in ({"batch_size": 0}, {"num_batches": 0}, {"sample": 3}):
        with pytest.raises(ConfigurationError, match="Received Generated"):
            Generated(**{"sample": sample, "batch_size": 2, **wrong})
    with pytest.raises(DataError, match=r"Received \(3,\) from the sample function"):
        Generated(lambda key, size: jnp.zeros(3), 2)
