"""A few batches of everything, without a file; a run without files; a trainer in a few words."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks._states import callback_states
from boltax.errors import ConfigurationError, MetricsError
from dummies import Classifier, Plain, classes, classifier, loader, to_host


class Noting(Classifier):
    """Notes what was called."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def predict_function(self, model, batch):
        return model(batch[0])

    def predict_batch(self, batch, batch_idx=0):
        self.seen.append(f"predict {batch_idx}")
        return super().predict_batch(batch, batch_idx)

    def on_training_start(self):
        self.seen.append("start")

    def on_training_epoch_end(self, epoch_idx):
        self.seen.append(f"step {self.run.step}")

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        self.seen.append(f"val {sorted(eval_metrics)}")

    def on_training_end(self):
        self.seen.append("end")


def files(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def test_everything_runs_and_nothing_stays(tmp_path):
    stopping = bx.callbacks.EarlyStopping("val/loss", "min", patience=1)
    kept = callback_states([stopping])
    trainer = classifier(tmp_path, Noting, model_class=Plain, callbacks=[stopping])
    before, state = files(tmp_path), to_host(trainer.state.params)
    data = loader(48, 8, shuffle=True)
    temporary = set(os.listdir(os.environ.get("TMPDIR", "/tmp")))
    metrics = trainer.fast_dev_run(data, data, data, batches=2)
    names = ["val/acc", "val/loss"]
    assert trainer.seen == ["start", "step 2", f"val {names}", "end", "predict 0", "predict 1"]
    assert {"val/loss", "test/loss"} <= metrics.keys()
    assert files(tmp_path) == before
    jax.tree.map(np.testing.assert_array_equal, to_host(trainer.state.params), state)
    assert (trainer.run, trainer.state.opt_state) == (None, None)
    assert callback_states([stopping]) == kept
    left = set(os.listdir(os.environ.get("TMPDIR", "/tmp"))) - temporary
    assert not [name for name in left if name.startswith("boltax-")]
    # and training afterwards is that of a trainer that was never asked
    other = classifier(tmp_path, Noting, model_class=Plain)
    found = [t.train_model(data, data, num_epochs=1)["train/loss"] for t in (trainer, other)]
    assert found[0] == found[1]


def test_a_mistake_is_raised_and_what_cannot_be_is_refused(tmp_path):
    trainer = classifier(tmp_path, model_class=Plain, monitor=("val/nothing", "max"))
    with pytest.raises(MetricsError, match="val/nothing"):
        trainer.fast_dev_run(loader(), loader())
    with pytest.raises(ConfigurationError, match="batches=0"):
        trainer.fast_dev_run(loader(), batches=0)
    with pytest.raises(ConfigurationError, match="read only once"):
        trainer.fast_dev_run(iter([classes(4)]))


def test_a_run_without_files_trains_and_tests_its_best_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = classifier(tmp_path, model_class=Plain, logger_params=False)
    folder = Path(trainer.log_dir)
    metrics = trainer.train_model(loader(), loader(), loader(), num_epochs=1)
    assert metrics["test/loss"] == pytest.approx(metrics["val/loss"])
    assert trainer.checkpoint.keep_last == 0
    assert not list(tmp_path.rglob("*"))
    assert folder.exists()
    del trainer
    import gc

    gc.collect()
    assert not folder.exists()


def test_a_trainer_shows_itself(tmp_path):
    trainer = classifier(tmp_path, model_class=Plain, label="<a&b>")
    count = sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params))
    assert repr(trainer).startswith(f"<Classifier model: Plain(); parameters: {count}; folder: ")
    trainer.train_model(loader(), loader(), num_epochs=1)
    row = trainer.history[-1]
    assert "trained: 1 epochs, 4 steps" in repr(trainer)
    assert f"val/loss {row['val/loss']:.4g}" in repr(trainer)
    page = trainer._repr_html_()
    assert page.count("<tr>") == 6
    assert f"<td style='text-align:left'>{count}</td>" in page
    assert repr(object.__new__(Classifier)) == "<Classifier >"


def test_a_loss_is_called_by_hand(tmp_path):
    class Smoothed(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss * model.hparams["factor"] + model.hparams["whole"], metrics

    trainer = classifier(tmp_path, Smoothed, factor=2.0, whole=3)
    batch = classes(8)
    by_eval = trainer.eval_model([batch])
    for model in (trainer.model_view(), trainer.bind_model()):
        loss, metrics = trainer.loss_function(model, batch, train=False)
        assert float(loss.mean()) == pytest.approx(by_eval["loss"], rel=1e-5)
        assert float(metrics["acc"].mean()) == by_eval["acc"]
    view = trainer.model_view(train=True)
    assert view.train
    trainer.loss_function(view, batch, train=True)
    before = trainer.state.batch_stats["BatchNorm_0"]["mean"]
    assert np.abs(view.variables["batch_stats"]["BatchNorm_0"]["mean"] - before).max() > 0
