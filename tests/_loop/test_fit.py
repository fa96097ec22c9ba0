"""The order of a run, as the docstring of the loop gives it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping, Log, Save, Stop
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.loggers import History
from dummies import Classifier, classifier, loader

HOOKS = [
    "on_training_start",
    "on_training_epoch_start",
    "on_step_end",
    "on_log",
    "on_training_epoch_end",
    "on_validation_epoch_end",
    "on_training_end",
    "on_test_end",
]


def recording(events):
    class Recorder(Callback):
        every = 2

    def note(hook):
        def call(self, view):
            events.append((hook, view.epoch, view.step))

        return call

    for hook in HOOKS:
        setattr(Recorder, hook, note(hook))
    return Recorder()


def test_hooks_run_in_the_documented_order(tmp_path):
    events = []

    class Noting(Classifier):
        def on_training_start(self):
            events.append("trainer.on_training_start")

        def on_training_epoch_end(self, epoch_idx):
            events.append("trainer.on_training_epoch_end")

        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            events.append("trainer.on_validation_epoch_end")

        def save_model(self, step=0):
            events.append("trainer.save_model")
            super().save_model(step)

        def on_training_end(self):
            events.append("trainer.on_training_end")

    trainer = classifier(
        tmp_path,
        Noting,
        callbacks=[recording(events)],
        check_val_every_n_epoch=2,
        loop=bx.LoopOptions(log_every=3),
    )
    trainer.train_model(loader(), loader(), loader(), num_epochs=2)
    assert events == [
        "trainer.on_training_start",
        ("on_training_start", 0, 0),
        ("on_training_epoch_start", 1, 0),
        ("on_step_end", 1, 2),
        ("on_log", 1, 3),
        ("on_step_end", 1, 4),
        "trainer.on_training_epoch_end",
        ("on_training_epoch_end", 1, 4),
        ("on_training_epoch_start", 2, 4),
        ("on_step_end", 2, 6),
        ("on_log", 2, 6),
        ("on_step_end", 2, 8),
        "trainer.on_training_epoch_end",
        ("on_training_epoch_end", 2, 8),
        "trainer.on_validation_epoch_end",
        ("on_validation_epoch_end", 2, 8),
        "trainer.save_model",
        "trainer.on_training_end",
        ("on_training_end", 2, 8),
        ("on_test_end", 2, 8),
    ]


def test_interval_means_and_epoch_mean_are_over_examples(tmp_path):
    records = []

    class Recorder(Callback):
        def on_log(self, view):
            records.append(view.metrics["train/step/acc"])

    class Scripted(Classifier):
        def loss_function(self, model, batch, train):
            loss, _ = super().loss_function(model, batch, train)
            return loss, {"acc": batch[1] == 0}

    trainer = classifier(
        tmp_path, Scripted, callbacks=[Recorder()], loop=bx.LoopOptions(log_every=2)
    )
    trainer.train_model(loader(), num_epochs=1)
    labels = loader().arrays[1]
    assert records == pytest.approx([(labels[:32] == 0).mean(), (labels[32:] == 0).mean()])
    assert trainer.run.history[0]["train/acc"] == pytest.approx((labels == 0).mean())


def test_a_callback_that_asks_to_stop_ends_the_run_after_that_epochs_validation(tmp_path):
    class StopAt(Callback):
        def on_step_end(self, view):
            return Stop("enough") if view.step == 6 else None

    trainer = classifier(tmp_path, callbacks=[StopAt()])
    metrics = trainer.train_model(loader(), loader(), loader(), num_epochs=10)
    assert trainer.run.step == 6
    assert "enough" in trainer.run.stop_reason
    assert "test/acc" in metrics


def test_what_a_callback_logs_reaches_loggers_and_history(tmp_path):
    class Adds(Callback):
        def on_training_epoch_end(self, view):
            return [Log({"mine": float(view.epoch)}), Save()]

    trainer = classifier(tmp_path, callbacks=[Adds()])
    trainer.train_model(loader(), loader(), num_epochs=2)
    assert [row["mine"] for row in trainer.run.history] == [1.0, 2.0]


def test_numbers_of_callbacks_become_floats_and_are_logged_once(tmp_path):
    class Adds(Callback):
        def on_log(self, view):
            return Log({"rate": jnp.float32(0.5)})

        def on_training_epoch_end(self, view):
            return Log({"norm": np.float32(3)})

        def on_validation_epoch_end(self, view):
            return Log({"val/mine": jnp.float32(view.epoch)})

    options = bx.LoopOptions(log_every=2)
    trainer = classifier(tmp_path, callbacks=[Adds()], loop=options, monitor=("val/mine", "max"))
    metrics = trainer.train_model(loader(), loader(), num_epochs=2)
    assert type(metrics["val/mine"]) is float
    rows = trainer.run.history
    assert [(row["rate"], row["norm"], row["val/mine"]) for row in rows] == [
        (0.5, 3, 1),
        (0.5, 3, 2),
    ]
    written = [row.split(",") for row in Path(trainer.log_dir, "metrics.csv").read_text().split()]
    assert [row[written[0].index("rate")] for row in written[1:]] == ["0.5"] * 4


def test_what_a_callback_saves_never_costs_the_best(tmp_path):
    class Saving(Callback):
        scores = iter([0.9, 0.1])

        def on_validation_epoch_end(self, view):
            return [Log({"val/score": next(self.scores)}), Save()]

    trainer = classifier(tmp_path, callbacks=[Saving()], monitor=("val/score", "max"))
    metrics = trainer.train_model(loader(), loader(), num_epochs=2)
    folder = RunDirectory(trainer.log_dir)
    assert metrics["val/score"] == 0.9
    assert [BestCheckpoints(path).steps() for path in (folder.best, folder.saved)] == [[4], [4, 8]]
    last = Classifier.load_from_checkpoint(folder.saved / "8")
    jax.tree.map(np.testing.assert_array_equal, last.state.params, trainer.state.params)


def test_a_monitor_of_the_validation_needs_one(tmp_path):
    trainer = classifier(tmp_path, callbacks=[bx.callbacks.EarlyStopping("val/loss")])
    with pytest.raises(bx.errors.ConfigurationError, match="'val/loss' but no val_loader"):
        trainer.train_model(loader(), num_epochs=1)


def test_epochs_by_hand_go_on_counting(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(2, 4)
    first, second = trainer.train_epoch(loader()), trainer.train_epoch(loader())
    assert second["train/loss"] < first["train/loss"]
    assert (trainer.run.epoch, trainer.run.step) == (2, 8)


def test_early_stopping_stops_and_the_view_is_frozen(tmp_path):
    class Tries(Callback):
        def on_training_start(self, view):
            view.step = 3

    with pytest.raises(AttributeError):
        classifier(tmp_path, callbacks=[Tries()]).train_model(loader(), num_epochs=1)
    stopping = bx.callbacks.EarlyStopping("val/loss", patience=2, min_delta=1e9)
    trainer = classifier(tmp_path, callbacks=[stopping])
    trainer.train_model(loader(), loader(), num_epochs=20)
    assert trainer.run.epoch == 3


def test_an_exception_reaches_callbacks_and_closes_the_loggers(tmp_path):
    seen = []

    class Watching(Callback):
        def on_exception(self, view, error):
            seen.append((view.step, type(error)))

    class Broken(Classifier):
        def on_training_epoch_end(self, epoch_idx):
            raise KeyboardInterrupt

    trainer = classifier(tmp_path, Broken, callbacks=[Watching()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train_model(loader(), num_epochs=1)
    assert seen == [(4, KeyboardInterrupt)]


def test_whatever_is_logged_the_history_counts_its_epochs_and_steps(tmp_path):
    class Counting(Callback):
        def on_log(self, view):
            return Log({"epoch": 99, "step": 0.5})

        def on_training_epoch_end(self, view):
            return Log({"epoch": 99})

        def on_validation_epoch_end(self, view):
            assert view.history[-1]["epoch"] == view.epoch
            return Log({"epoch": 99, "step": 0.5})

    class Own(Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            eval_metrics |= {"epoch": epoch_idx, "step": 7.5}

    for options in ({"callbacks": [Counting()]}, {"trainer_class": Own}):
        trainer = classifier(tmp_path, loop=bx.LoopOptions(log_every=1), **options)
        trainer.train_model(loader(32), loader(16), num_epochs=2)
        rows = History(RunDirectory(trainer.log_dir).history).rows()
        assert [(row["epoch"], row["step"]) for row in rows] == [(1, 2), (2, 4)]
        assert [row["step"] for row in trainer.run.history] == [2, 4]


def test_a_callback_sees_what_those_before_it_have_logged_at_this_moment(tmp_path):
    class Logging(Callback):
        def on_log(self, view):
            return Log({"smooth": 2.0})

        def on_training_epoch_end(self, view):
            return Log({"train/own": 10.0 * view.epoch})

        def on_validation_epoch_end(self, view):
            return Log({"val/own": float(view.epoch), "val/acc": -1.0})

    class Seeing(Callback):
        def __init__(self):
            self.seen = []

        def on_training_epoch_end(self, view):
            row = view.history[-1]
            self.seen.append((row["smooth"], row["train/own"], view.metrics["train/own"]))

        def on_validation_epoch_end(self, view):
            row, metrics = view.history[-1], view.metrics
            self.seen.append((row["val/own"], metrics["val/own"], row["val/acc"]))
            assert metrics["val/acc"] == -1.0

    before, after = Seeing(), Seeing()
    stopping = EarlyStopping("val/own", mode="min", patience=2)
    trainer = classifier(
        tmp_path, callbacks=[Logging(), after, stopping], loop=bx.LoopOptions(log_every=1)
    )
    trainer.train_model(loader(32), loader(16), num_epochs=5)
    assert after.seen[:2] == [(2.0, 10.0, 10.0), (1.0, 1.0, -1.0)]
    assert trainer.run.epoch == 3  # it only grows, and so has not improved twice
    trainer = classifier(tmp_path, callbacks=[before, Logging()], loop=bx.LoopOptions(log_every=1))
    with pytest.raises(KeyError, match="own"):
        trainer.train_model(loader(32), loader(16), num_epochs=1)
