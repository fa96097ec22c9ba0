"""What callbacks and hooks get wrong, and what they are told."""

import numpy as np
import pytest

from boltax.callbacks import Callback, EarlyStopping, Log
from boltax.errors import DataError, MetricsError
from dummies import Classifier, classifier, loader


@pytest.mark.parametrize("value", ["good", None, {"a": 1.0}], ids=repr)
def test_a_metric_that_is_no_number_is_refused_where_it_is_logged(value):
    with pytest.raises(MetricsError, match=r"metric 'x' = .* from Log\(metrics=...\)"):
        Log({"x": value})


@pytest.mark.parametrize("value", ["good", None, {"a": 1.0}], ids=repr)
def test_a_metric_of_a_hook_that_is_no_number_is_named(tmp_path, value):
    class Own(Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            eval_metrics["val/x"] = value

    trainer = classifier(tmp_path, Own)
    with pytest.raises(MetricsError, match=r"metric 'val/x' = .* Own.on_validation_epoch_end"):
        trainer.train_model(loader(14), loader(14), num_epochs=1)


def test_arrays_among_the_metrics_of_a_hook_are_kept(tmp_path):
    class Own(Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            eval_metrics["val/per_class"] = np.array([0.5, 1.0])

    metrics = classifier(tmp_path, Own).train_model(loader(14), loader(14), num_epochs=1)
    np.testing.assert_array_equal(metrics["val/per_class"], [0.5, 1.0])


def test_a_view_predicts_a_batch_and_says_so_of_a_loader(tmp_path):
    class Predict(Callback):
        def __init__(self, given):
            self.given, self.outputs = given, None

        def on_training_end(self, view):
            self.outputs = view.predict(self.given)

    batch = next(iter(loader(14)))
    callback = Predict(batch)
    classifier(tmp_path, callbacks=[callback]).train_model(loader(14), num_epochs=1)
    assert callback.outputs.shape == (len(batch[1]), 3)
    callback = Predict(loader(14))
    with pytest.raises(DataError, match=r"with a ArrayLoader; expected one batch.*next\(iter"):
        classifier(tmp_path, callbacks=[callback]).train_model(loader(14), num_epochs=1)


def test_early_stopping_advises_a_metric_of_that_name_and_no_time(tmp_path):
    trainer = classifier(tmp_path, callbacks=[EarlyStopping("val_acc", mode="max")])
    with pytest.raises(MetricsError, match=r"Write EarlyStopping\(monitor='val/acc'\)"):
        trainer.train_model(loader(14), loader(14), num_epochs=1)
