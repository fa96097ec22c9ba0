"""Learned optimizers by name, in a trainer."""

import flax.linen as nn
import numpy as np
import pytest

import boltax as bx
from boltax.errors import OptimizerError
from boltax.optim._learned_weights import VARIABLE
from boltax.testing import assert_resumes_exactly
from dummies import Classifier, Linear, classifier, loader
from learned_weights import NAMES, REFERENCE, write_all


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(32)(x)))


SMALL = {"model_class": Linear, "model_hparams": {"features": 3}}


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "weights"))
    return write_all(tmp_path / "weights")


@pytest.mark.parametrize("name", [pytest.param("velo", marks=pytest.mark.slow), *NAMES[:2]])
def test_a_run_resumes_exactly(name):
    def make_trainer(log_dir):
        params = {"log_dir": log_dir, "logger_type": "csv"}
        hparams = {"optimizer": name, "l2_regularization": 1e-3}
        return classifier("", optimizer_hparams=hparams, logger_params=params, **SMALL)

    assert_resumes_exactly(make_trainer, lambda: [loader()], interrupt_at=3)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="trained weights and digits are not here")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["celo", "celo_adam"])
def test_trained_weights_learn_digits_in_a_trainer(name, tmp_path):
    with np.load(REFERENCE / "digits.npz", allow_pickle=False) as found:
        images, labels = found["x"].astype(np.float32) / 16, found["y"]
    loaders = (
        bx.data.ArrayLoader((images[:1500], labels[:1500]), 128, shuffle=True),
        bx.data.ArrayLoader((images[1500:], labels[1500:]), 128),
    )
    trainer = Classifier(
        Mlp,
        optimizer_hparams={
            "optimizer": name,
            "weights": str(REFERENCE / f"{name}.theta.state"),
        },
        exmp_input=(images[:2], labels[:2]),
        logger_params={"base_log_dir": str(tmp_path), "logger_type": "csv"},
        enable_progress_bar=False,
    )
    metrics = trainer.train_model(*loaders, num_epochs=20)
    assert metrics["val/acc"] > 0.9
    assert metrics["train/loss"] < 0.1


def test_an_unknown_number_of_steps_is_an_error_before_the_first_step(tmp_path):
    trainer = classifier(tmp_path, optimizer_hparams={"optimizer": "celo"}, **SMALL)
    batches = (batch for batch in loader())
    with pytest.raises(OptimizerError, match=r"total_steps=None for optimizer 'celo'; .*max_steps"):
        trainer.train_model(batches, num_epochs=1)


def test_wrong_weights_are_an_error_of_the_constructor(tmp_path, weights):
    hparams = {"optimizer": "celo", "weights": weights["celo_adam"]}
    with pytest.raises(OptimizerError, match="whose arrays are others"):
        classifier(tmp_path, optimizer_hparams=hparams, **SMALL)


def test_a_stored_run_needs_no_weights_to_predict_and_says_so_when_it_trains(tmp_path, monkeypatch):
    hparams = {"optimizer": "celo_adam"}
    trainer = classifier(tmp_path, optimizer_hparams=hparams, **SMALL)
    trainer.train_model(loader(), loader(), num_epochs=1)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    loaded = Classifier.load_from_checkpoint(trainer.log_dir)
    batch = next(iter(loader()))
    np.testing.assert_array_equal(loaded.predict_batch(batch), trainer.predict_batch(batch))
    with pytest.raises(OptimizerError, match="Received no weights for optimizer 'celo_adam'"):
        loaded.train_model(loader(), num_epochs=2)


def test_own_steps_have_to_hand_over_the_loss(tmp_path):
    class WithoutLoss(Classifier):
        def create_functions(self):
            def train_step(state, batch):
                return state.apply_gradients(grads=state.params), {"loss": 0.0}

            return train_step, lambda state, batch: {"loss": 0.0}

        loss_function = bx.TrainerModule.loss_function

    trainer = classifier(
        tmp_path,
        WithoutLoss,
        optimizer_hparams={"optimizer": "celo_adam"},
        exmp_input=[np.ones((2, 4), np.float32)],
        **SMALL,
    )
    match = r"optimizer 'celo_adam' .*apply_gradients\(grads=grads, loss=loss\)"
    with pytest.raises(OptimizerError, match=match):
        trainer.train_model(loader(), num_epochs=1)
