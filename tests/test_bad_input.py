"""Bad input is answered by an error: what was received, what was expected, what to write."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax import errors
from dummies import Classifier, Linear, Mlp, classes, classifier, loader


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"exmp_input": np.zeros((4, 4, 4), np.int32)},
            errors.LossError,
            r"inputs, labels = batch.*exmp_input: int32\[4, 4, 4\]",
        ),
        (
            {"monitor": "val/acc"},
            errors.ConfigurationError,
            r"monitor='val/acc'; expected a metric and a direction",
        ),
        (
            {"optimizer_hparams": {"optimizer": "adm"}},
            errors.UnknownNameError,
            "Did you mean 'adam'",
        ),
        (
            {"optimizer_hparams": {"schedule": "warmup_cosin"}},
            errors.UnknownNameError,
            "Did you mean 'warmup_cosine'",
        ),
        ({"optimizer_hparams": {"learning": 3}}, errors.UnknownNameError, "learning"),
        (
            {"optimizer_hparams": {"weight_decay": 0.1, "l2_regularization": 0.1}},
            errors.OptimizerError,
            "l2_regularization",
        ),
        (
            {"logger_params": {"logger_type": "tensorbord"}},
            errors.UnknownNameError,
            "Did you mean 'TensorBoard'",
        ),
        (
            {"logger_params": {"base_dir": "x"}},
            errors.UnknownNameError,
            "Did you mean 'base_log_dir'",
        ),
        (
            {"check_val_every_n_epochs": 2},
            errors.UnknownNameError,
            "Did you mean 'check_val_every_n_epoch'",
        ),
        (
            {"check_val_every_n_epoch": 0},
            errors.ConfigurationError,
            "check_val_every_n_epoch=0; expected a whole",
        ),
        ({"model_hparams": {"featurs": 3}}, errors.BoltaxError, "Did you mean 'features'"),
        ({"threshold": object()}, errors.HyperparameterError, "threshold"),
        ({"callbacks": [print]}, errors.ConfigurationError, "expected an instance of a subclass"),
        ({"loop": {"log_every": 5}}, errors.ConfigurationError, "expected LoopOptions"),
        ({"parallel": "dtaa"}, errors.UnknownNameError, "Did you mean 'data'"),
        ({"model_class": dict}, errors.ModelError, "dict"),
    ],
)
def test_a_wrong_argument_is_refused_by_the_constructor(
    tmp_path, monkeypatch, options, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        classifier(tmp_path, **options)


def test_a_trainer_without_loss_and_steps_says_which_to_write(tmp_path):
    with pytest.raises(
        errors.ConfigurationError, match="neither loss_function nor create_functions"
    ):
        classifier(tmp_path, bx.TrainerModule)


def test_a_log_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.RunDirectoryError, match="file"):
        classifier(tmp_path / "file")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda loss, n: (jnp.ones((3, 2)), {}), errors.LossError, r"a loss of float32\[3, 2\]"),
        (
            lambda loss, n: (jnp.ones((n,), jnp.int32), {}),
            errors.LossError,
            r"a loss of int32\[4\]",
        ),
        (lambda loss, n: None, errors.LossError, "a loss of NoneType"),
        (lambda loss, n: (loss, {"loss": loss}), errors.MetricsError, "a metric named 'loss'"),
        (lambda loss, n: (loss, [loss]), errors.MetricsError, "metrics of type list"),
    ],
)
def test_what_loss_function_returns_is_checked_at_construction(tmp_path, returned, error, message):
    class Wrong(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            return returned(model(batch[0]).mean(), batch[0].shape[0])

    with pytest.raises(error, match=message):
        classifier(tmp_path, Wrong)


def test_a_metric_of_wrong_shape_is_refused_at_construction(tmp_path):
    class Wrong(Classifier):
        def loss_function(self, model, batch, train):
            return super().loss_function(model, batch, train)[0], {"m": jnp.ones(3)}

    with pytest.raises(errors.MetricsError, match=r"metric 'm' with float32\[3\] for a batch of 4"):
        classifier(tmp_path, Wrong)


def test_metrics_that_differ_between_steps(tmp_path):
    class Wrong(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss, metrics if batch[0].shape[0] == 16 else {}

    with pytest.raises(errors.MetricsError, match=r"missing \['acc'\]"):
        classifier(tmp_path, Wrong).train_model(loader(), num_epochs=1)


def ragged():
    inputs, labels = classes(8)
    yield inputs, labels[:5]


def changing():
    yield classes(8)
    yield dict(zip(["x", "y"], classes(8), strict=True))


@pytest.mark.parametrize(
    ("make_loader", "message"),
    [
        (list, "batch"),
        (lambda: iter(()), "batch"),
        (lambda: ragged, "first axis"),
        (lambda: changing, "batch"),
        (lambda: [("some text", "more")], "str"),
        (lambda: 5, "int"),
    ],
)
@pytest.mark.parametrize("role", ["train", "val"])
def test_a_loader_that_cannot_be_used(tmp_path, make_loader, message, role):
    trainer = classifier(tmp_path)
    use = trainer.train_model if role == "train" else trainer.eval_model
    with pytest.raises(errors.DataError, match=message):
        use(make_loader())


def test_a_monitor_that_names_no_metric_is_found_before_the_first_epoch(tmp_path):
    trainer = classifier(tmp_path, monitor=("val/accuracy", "max"))
    with pytest.raises(
        errors.MetricsError, match=r"'val/accuracy'.*expected one of: val/acc, val/loss"
    ):
        trainer.train_model(loader(), loader(), num_epochs=1)
    assert trainer.run.step == 0


def test_a_loader_without_length_with_a_schedule_that_needs_one(tmp_path):
    trainer = classifier(tmp_path, optimizer_hparams={"schedule": "warmup_cosine"})
    with pytest.raises(errors.OptimizerError, match="max_steps"):
        trainer.train_model(iter([classes(8)]), num_epochs=1)


@pytest.mark.parametrize("number", [{"num_epochs": 0}, {"max_steps": 0}, {"num_epochs": 1.5}])
def test_a_number_of_epochs_or_steps_that_is_none(tmp_path, number):
    with pytest.raises(errors.ConfigurationError, match="expected a whole number"):
        classifier(tmp_path).train_model(loader(), **number)


def test_training_before_there_is_an_optimizer(tmp_path):
    with pytest.raises(errors.TrainingError, match="init_optimizer"):
        classifier(tmp_path).train_epoch(loader())


@pytest.mark.parametrize(
    ("method", "arguments", "notes"),
    [
        ("loss_function", ["model", "batch", "train"], ["loss_function of Broken"]),
        ("on_training_start", [], ["Broken.on_training_start", "epoch 0, step 0"]),
        (
            "on_training_epoch_end",
            ["epoch_idx"],
            ["Broken.on_training_epoch_end", "train, epoch 1, step 4"],
        ),
        (
            "on_validation_epoch_end",
            ["epoch_idx", "m", "l"],
            ["Broken.on_validation_epoch_end", "val, epoch 1, step 4"],
        ),
        (
            "is_new_model_better",
            ["new", "old"],
            ["Broken.is_new_model_better", "val, epoch 1, step 4"],
        ),
    ],
)
def test_an_exception_of_the_users_keeps_its_type_and_says_where_it_came_from(
    tmp_path, method, arguments, notes
):
    def broken(self, *args):
        if method != "loss_function" or args[1][0].shape[0] == 2:  # the last, ragged batch
            raise ZeroDivisionError("mine")
        return Classifier.loss_function(self, *args)

    trainer = classifier(tmp_path, type("Broken", (Classifier,), {method: broken}))
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        trainer.train_model(loader(), loader(), num_epochs=1)
    text = " ".join(caught.value.__notes__)
    assert all(note in text for note in notes)


def test_an_exception_out_of_a_callback_names_it(tmp_path):
    class Bad(bx.callbacks.Callback):
        def on_training_epoch_end(self, view):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        classifier(tmp_path, callbacks=[Bad()]).train_model(loader(), num_epochs=1)
    assert "callback Bad.on_training_epoch_end" in caught.value.__notes__[0]


def test_a_step_that_returns_no_pair(tmp_path):
    class Wrong(bx.TrainerModule):
        def create_functions(self):
            return (lambda state, batch: state), (lambda state, batch: {})

    trainer = classifier(tmp_path, Wrong, Linear, exmp_input=classes(4)[0])
    with pytest.raises(errors.TrainingError, match="expected a pair"):
        trainer.train_model(loader(), num_epochs=1)


def test_an_attribute_that_is_set_too_late_says_so(tmp_path):
    class Late(Classifier):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.scale = 2.0

        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return self.scale * loss, metrics

    with pytest.raises(AttributeError, match="scale") as caught:
        classifier(tmp_path, Late)
    assert "before super().__init__" in " ".join(caught.value.__notes__)


def test_a_model_that_is_given_by_position_of_a_wrong_kind(tmp_path):
    assert issubclass(Mlp, nn.Module)
    with pytest.raises(errors.ModelError, match="int"):
        classifier(tmp_path, model_class=3)
