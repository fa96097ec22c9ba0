"""What follows a metric that there will not be is told before the first step."""

import jax.numpy as jnp
import pytest

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping, LearningRateMonitor, Log, LogFigure, Timer
from boltax.errors import ConfigurationError, MetricsError
from dummies import Classifier, GuideRegressor, Linear, classifier, line, loader

QUIET = [Timer("10:00:00"), LogFigure("nothing", lambda view: None), LearningRateMonitor()]


class Adding(Callback):
    """Logs a metric of its own after each validation."""

    def on_validation_epoch_end(self, view):
        return Log({"val/mine": 1.0})


class AddingHook(Classifier):
    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        eval_metrics["val/mine"] = 1.0


def refused(trainer, *loaders, match, error=MetricsError):
    with pytest.raises(error, match=match) as caught:
        trainer.train_model(*loaders, num_epochs=1)
    assert trainer.run is None or trainer.run.step == 0
    return str(caught.value)


@pytest.mark.parametrize("data", ["arrays", "list"])
def test_an_early_stopping_by_a_misspelt_name_is_told_before_the_first_step(tmp_path, data):
    val = loader() if data == "arrays" else list(loader())
    trainer = classifier(tmp_path, callbacks=[EarlyStopping("val_acc"), *QUIET])
    said = refused(trainer, loader(), val, match="'val_acc' of EarlyStopping")
    assert said.endswith("Did you mean 'val/acc'? Write EarlyStopping(monitor='val/acc').")
    assert "time/" not in said


def test_a_misspelt_monitor_is_told_also_beside_callbacks_that_log_no_metrics(tmp_path):
    callbacks = [EarlyStopping("val/loss"), *QUIET]
    trainer = classifier(tmp_path, monitor=("val_acc", "max"), callbacks=callbacks)
    said = refused(trainer, loader(), loader(), match="'val_acc', which is not among")
    assert said.endswith("Write monitor=('val/acc', 'max').")


@pytest.mark.parametrize("val", [None, "given"])
@pytest.mark.parametrize("data", ["arrays", "list"])
def test_names_of_training_are_known_with_its_trace(tmp_path, val, data):
    train = loader() if data == "arrays" else list(loader())
    trainer = classifier(tmp_path, callbacks=[EarlyStopping("train/accuracy")])
    said = refused(trainer, train, val and loader(), match="'train/accuracy' of EarlyStopping")
    assert "train/acc, train/grad_norm, train/loss" in said


def test_steps_of_a_users_own_are_traced_too(tmp_path):
    settings = {"exmp_input": [line(4)[0]], "enable_progress_bar": False}
    settings |= {"logger_params": {"base_log_dir": str(tmp_path), "logger_type": "none"}}
    data = bx.data.ArrayLoader(line(), 8)
    trainer = GuideRegressor(Linear, {}, callbacks=[EarlyStopping("val/mse")], **settings)
    refused(trainer, data, data, match="'val/mse' of EarlyStopping.*one of: val/loss")


@pytest.mark.parametrize(
    "trainer_class,callbacks",
    [(Classifier, [Adding()]), (AddingHook, [])],
    ids=["callback", "hook"],
)
def test_names_that_a_hook_may_add_are_not_refused(tmp_path, trainer_class, callbacks):
    if trainer_class is AddingHook:  # one callback does not see what another one logs with it
        callbacks = [EarlyStopping("val/mine", mode="max", patience=5)]
    options = {"monitor": ("val/mine", "max"), "callbacks": callbacks}
    metrics = classifier(tmp_path, trainer_class, **options).train_model(
        loader(), loader(), num_epochs=3
    )
    assert metrics["val/mine"] == 1.0


def test_an_early_stopping_that_would_never_look_is_refused(tmp_path):
    for name in ("acc", "val/acc"):
        trainer = classifier(tmp_path, callbacks=[EarlyStopping(name)])
        refused(trainer, loader(), match="but no val_loader", error=ConfigurationError)


def test_an_early_stopping_without_a_metric_follows_the_trainers_monitor(tmp_path):
    stopping = EarlyStopping(patience=1, min_delta=100.0)  # nothing improves by so much
    trainer = classifier(tmp_path, monitor=("val/loss", "min"), callbacks=[stopping])
    trainer.train_model(loader(), loader(), num_epochs=5)
    assert trainer.run.epoch == 2
    assert trainer.run.stop_reason.startswith("EarlyStopping: val/loss has not improved")
    without = classifier(tmp_path, callbacks=[EarlyStopping()])
    refused(without, loader(), loader(), match="without a monitor", error=ConfigurationError)


@pytest.mark.parametrize("val", [None, "given"])
def test_the_best_model_may_be_told_by_a_metric_of_training(tmp_path, val):
    def schedule(step):  # downhill, and then uphill again
        return jnp.where(step < 8, 0.05, -0.05)

    settings = {"optimizer": "sgd", "schedule": schedule}
    trainer = classifier(tmp_path, monitor=("train/loss", "min"), optimizer_hparams=settings)
    metrics = trainer.train_model(loader(), val and loader(), num_epochs=6)
    losses = [row["train/loss"] for row in trainer.run.history]
    assert metrics["train/loss"] == min(losses) < losses[-1]
