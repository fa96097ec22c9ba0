"""Methods that nothing calls, attributes that there are not, and copies are told at once."""

import copy
import pickle

import pytest

import boltax as bx
from boltax._build._methods import check_methods, is_trainer, overridden, overrides
from boltax.errors import ConfigurationError, UnknownNameError
from dummies import Classifier, GuideRegressor, classifier, loader


def subclass(name, base=Classifier, **members):
    return type("Own", (base,), {name: lambda self, *args: None, **members})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("on_validation_epoch_start", r"Write on_validation_epoch_end\(self, epoch_idx"),
        ("on_train_epoch_end", r"Write on_training_epoch_end\(self, epoch_idx\)"),
        ("on_train_start", r"Write on_training_start\(self\)"),
        ("training_step", r"Write loss_function\(self, model, batch, train\)"),
        ("validation_step", r"Write loss_function"),
        ("predict_step", r"Write predict_function"),
        ("configure_optimizers", r"Write optimizer_hparams="),
        ("on_train_batch_end", r"Write a boltax.callbacks.Callback"),
        ("on_training_epoch_ends", r"Write on_training_epoch_end\(self, epoch_idx\)"),
        ("predict_functions", r"Write predict_function\(self, model, batch\)"),
        ("is_new_model_beter", r"Write is_new_model_better\(self, new, old\)"),
        ("train_step", r"which the trainer sets itself.*Write create_functions"),
    ],
)
def test_a_method_that_nothing_calls_is_refused_with_the_name_that_was_meant(name, message):
    with pytest.raises(ConfigurationError, match=f"Own with a method {name}.*{message}"):
        check_methods(subclass(name))


def test_a_trainer_in_another_librarys_words_says_what_its_loss_is_called():
    with pytest.raises(ConfigurationError, match=r"neither .* but with training_step"):
        check_methods(subclass("training_step", bx.TrainerModule))


def test_methods_of_ones_own_are_allowed():
    class Own(Classifier):
        def training_step(self, batch):
            return batch

        def loss_function(self, model, batch, train):
            return super().loss_function(model, self.training_step(batch), train)

        def eval_models(self):
            return None

        def plot(self):
            return None

    check_methods(Own)
    check_methods(subclass("log_metric"))
    check_methods(GuideRegressor)


def test_what_a_class_overrides_is_known_by_class_and_by_trainer(tmp_path):
    assert overridden(GuideRegressor) == {"create_functions"}
    assert overridden(bx.TrainerModule) == frozenset()
    assert overrides(Classifier, "loss_function")
    assert not overrides(classifier(tmp_path), "create_functions")
    assert not is_trainer(Classifier)


def test_a_constructor_that_does_not_call_its_base_says_so():
    class Forgetful(Classifier):
        def __init__(self, **kwargs):
            self.scale = 2.0

    trainer = Forgetful()
    assert trainer.scale == 2.0
    with pytest.raises(AttributeError, match=r"Write super\(\).__init__\(\.\.\.\) in Forgetful"):
        trainer.train_model(loader(), num_epochs=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("log", "self.logger.log_metrics"),
        ("global_step", r"int\(self.state.step\)"),
        ("log_dirs", "Did you mean 'log_dir'"),
        ("unheard_of", r"Set it before super\(\).__init__\(\)"),
    ],
)
def test_an_attribute_that_there_is_not_says_what_to_write(tmp_path, name, message):
    trainer = classifier(tmp_path)
    with pytest.raises(AttributeError, match=message):
        getattr(trainer, name)
    assert not hasattr(trainer, name)


def test_log_in_a_loss_says_what_to_write(tmp_path):
    class Logging(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            self.log("train_loss", loss)
            return loss, metrics

    with pytest.raises(AttributeError, match=r"Logging.log; .*Write return loss, \{"):
        classifier(tmp_path, Logging)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_trainer_is_not_copied_and_not_pickled(tmp_path, way):
    with pytest.raises(TypeError, match=r"Write|write Classifier.load_from_checkpoint"):
        way(classifier(tmp_path))


def test_a_misspelt_argument_of_train_model_is_told(tmp_path):
    with pytest.raises(UnknownNameError, match=r"train_model 'epochs'.*Did you mean 'num_epochs'"):
        classifier(tmp_path).train_model(loader(), epochs=2)
    with pytest.raises(UnknownNameError, match=r"ArrayLoader 'shufle'.*Did you mean 'shuffle'"):
        loader(shufle=True)
