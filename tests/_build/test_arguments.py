"""Arguments of the constructor that cannot work are refused before anything is built."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax import errors
from boltax._build._arguments import check_positive, seed_of, whole
from dummies import Classifier, GuideRegressor, Linear, classes, classifier, loader


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path):
    trainer = classifier(
        tmp_path, seed=np.int64(7), check_val_every_n_epoch=np.int32(2), monitor=("val/acc", "max")
    )
    assert (type(trainer.seed), type(trainer.check_val_every_n_epoch)) == (int, int)
    metrics = trainer.train_model(
        loader(), loader(), num_epochs=np.int64(2), max_steps=np.int32(100)
    )
    assert int(trainer.state.step) == 8
    assert metrics["val/acc"] > 0
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert (again.seed, again.check_val_every_n_epoch) == (7, 2)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", np.float32(2), np.bool_(True)])
def test_what_is_no_whole_number_of_at_least_one_is_refused(value):
    with pytest.raises(errors.ConfigurationError, match=r"n=.*expected a whole number"):
        check_positive(n=value)
    with pytest.raises(errors.ConfigurationError, match="expected a whole number"):
        whole("n", value)
    check_positive(n=None)


@pytest.mark.parametrize("seed", [1.5, "a", None, True, 2**80])
def test_a_seed_of_which_no_key_can_be_made_is_refused(seed):
    with pytest.raises(errors.ConfigurationError, match="expected a whole number of at most 64"):
        seed_of(seed)
    assert seed_of(np.uint8(3)) == 3


def test_a_forgotten_example_is_asked_for(tmp_path):
    for kind, model in ((Classifier, Linear), (GuideRegressor, Linear)):
        with pytest.raises(errors.ConfigurationError, match=r"exmp_input=next\(iter\(train_load"):
            classifier(tmp_path, kind, model, exmp_input=None)


def test_who_initialises_the_model_needs_no_example(tmp_path):
    class Own(Classifier):
        def run_model_init(self, exmp_input, init_rng):
            return self.model.init(init_rng, classes(4)[0])

    assert classifier(tmp_path, Own, Linear, exmp_input=None, model_hparams={"features": 3}).state


def test_a_batch_with_keys_of_several_types_is_refused(tmp_path):
    inputs, labels = classes(4)
    batch = {"x": inputs, 0: labels}
    with pytest.raises(errors.ConfigurationError, match=r"keys \['x', 0\] \(int, str\)"):
        classifier(tmp_path, exmp_input=batch)
    with pytest.raises(errors.ConfigurationError, match=r"exmp_input\['part'\]\[0\] as a dict"):
        classifier(tmp_path, exmp_input={"part": [batch]})


def test_an_integer_that_no_device_holds_is_a_hyperparameter_as_any_other(tmp_path, caplog):
    class Reading(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss * (model.hparams["large"] % 7), metrics

    params = {"base_log_dir": str(tmp_path), "logger_type": "TensorBoard"}
    options = {"loop": bx.LoopOptions(log_every=1), "logger_params": params}
    trainer = classifier(tmp_path, Reading, large=2**80, **options)
    plain = classifier(tmp_path)
    losses = [
        float(jax.device_get(t.eval_step(t.state, classes(4))["loss"]).mean())
        for t in (trainer, plain)
    ]
    assert losses[0] == pytest.approx(losses[1] * (2**80 % 7), rel=1e-6)
    trainer.train_model(loader(), loader(), num_epochs=1)
    assert not [record for record in caplog.records if "failed" in record.getMessage()]
    assert Reading.load_from_checkpoint(trainer.log_dir).hparams["large"] == 2**80


def test_an_integer_that_no_device_holds_is_told_where_the_loss_computes_with_it(tmp_path):
    class Scaled(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss * model.hparams["large"], metrics

    with pytest.raises(errors.LossError, match=r"fits into no dtype of JAX. Write it as a float"):
        classifier(tmp_path, Scaled, large=2**80)
