"""Saving in the background: what it costs the loop, and what happens when it fails."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax import trainer as trainer_module
from boltax._base._triggers import Every
from boltax._build._copies import Copies
from boltax.callbacks import Callback
from boltax.checkpoint import RunDirectory, _step_folders
from boltax.checkpoint._manifest import verify_folder
from boltax.checkpoint._saver import Job, Saver
from boltax.errors import NotSavedError, TrainingError
from boltax.loggers import History, LoggerGroup
from dummies import Classifier, classifier, loader


def trainer_of(folder, **options):
    params = {"log_dir": str(folder), "logger_type": "none"}
    return classifier("unused", logger_params=params, **options)


class FullDisk:
    """Lets some saves fail as on a full disk; counts them."""

    def __init__(self, monkeypatch, name, is_full):
        self.count = 0
        write = _step_folders.write_arrays

        def failing(folder, kind, tree):
            self.count += kind == name
            if kind == name and is_full(self.count):
                (folder / "half").write_bytes(b"x" * 1000)
                raise OSError(28, "No space left on device")
            write(folder, kind, tree)

        monkeypatch.setattr(_step_folders, "write_arrays", failing)


def saved(folder, kind="resume"):
    folders = (RunDirectory(folder).path / "checkpoints" / kind).iterdir()
    return {path.name for path in folders if not verify_folder(path)}


EVERY_STEP = {"checkpoint": bx.CheckpointOptions(every_steps=1, keep_last=3)}


class Wait(Callback):
    """Has each step wait until the one before is saved, so that each is."""

    def __init__(self):
        self.trainer = None

    def on_step_end(self, view):
        self.trainer._made.saver.wait()


def train_step_by_step(folder, **options):
    wait = Wait()
    wait.trainer = trainer = trainer_of(folder, callbacks=[wait], **EVERY_STEP)
    trainer.train_model(loader(70), num_epochs=1, **options)
    return trainer


def test_a_full_disk_is_told_at_its_step_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    FullDisk(monkeypatch, "arrays", lambda count: count in (2, 3))
    trainer = train_step_by_step(tmp_path)
    assert trainer.run.step == 5
    assert "Saving the resume checkpoint of step 2 failed" in caplog.text
    assert "No space left on device" in caplog.text
    assert "NOT SAVED" not in caplog.text
    assert "5" in saved(tmp_path)
    assert not list((tmp_path / "checkpoints" / "resume").glob(".*"))


def test_the_end_is_not_said_to_be_saved_when_it_is_not(tmp_path, monkeypatch, caplog):
    FullDisk(monkeypatch, "arrays", lambda count: count > 1)
    with pytest.raises(NotSavedError, match="NOT SAVED: the resume checkpoint of step 5"):
        train_step_by_step(tmp_path)
    assert "NOT SAVED: the resume checkpoint of step 5" in caplog.text
    assert saved(tmp_path) == {"1"}


def test_a_best_model_that_could_not_be_written_is_written_later(tmp_path, monkeypatch, caplog):
    FullDisk(monkeypatch, "variables", lambda count: count == 1)
    trainer = trainer_of(tmp_path)
    metrics = trainer.train_model(loader(70), loader(), loader(), num_epochs=1)
    assert "Saving the best model of step 5 failed" in caplog.text
    assert saved(tmp_path, "best") == {"5"}
    assert "test/acc" in metrics


def test_a_deleted_folder_is_made_again(tmp_path):
    import shutil

    class Delete(Callback):
        def on_step_end(self, view):
            if view.step == 3:
                shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)

    trainer_of(tmp_path, callbacks=[Delete()], **EVERY_STEP).train_model(loader(70), num_epochs=1)
    assert "5" in saved(tmp_path)


def test_the_test_never_uses_an_older_best_model_silently(tmp_path, monkeypatch, caplog):
    FullDisk(monkeypatch, "variables", lambda count: count > 1)
    trainer = trainer_of(tmp_path)
    statuses = []
    monkeypatch.setattr(LoggerGroup, "finalize", lambda self, status: statuses.append(status))
    with pytest.raises(NotSavedError) as raised:
        trainer.train_model(loader(70), loader(70), loader(), num_epochs=3)
    assert "could not be written: the test uses the last model instead" in caplog.text
    assert int(trainer.state.step) == 15
    # all else is done: metrics are there, and the trainer can be used
    metrics = json.loads((tmp_path / "metrics" / "test.json").read_text())
    assert raised.value.metrics["test/acc"] == metrics["test/acc"]
    assert raised.value.metrics["val/acc"] == trainer.run.best["val/acc"]
    assert statuses == ["failed"]
    monkeypatch.undo()
    trainer.save_snapshot()
    assert saved(tmp_path, "saved") == {"15"}


def test_metrics_and_history_that_could_not_be_written_are_written_later(
    tmp_path, monkeypatch, caplog
):
    failures = iter([True, True])
    write, append = trainer_module.write_json, History.append

    def fail():
        if next(failures, False):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer_module, "write_json", lambda *args: fail() or write(*args))
    monkeypatch.setattr(History, "append", lambda *args: fail() or append(*args))
    trainer = trainer_of(tmp_path)
    trainer.train_model(loader(), loader(), num_epochs=3)
    assert caplog.text.count("No space left") == 2
    assert len(list((tmp_path / "metrics").iterdir())) == 4
    assert [row["epoch"] for row in History(tmp_path / "history.csv").rows()] == [1, 2, 3]


def test_an_exception_of_the_user_is_raised_though_saving_fails(tmp_path, monkeypatch, caplog):
    class Fail(Callback):
        def on_step_end(self, view):
            raise KeyError("mine")

    FullDisk(monkeypatch, "arrays", lambda count: True)
    with pytest.raises(KeyError, match="mine"):
        trainer_of(tmp_path, callbacks=[Fail()]).train_model(loader(), num_epochs=1)
    assert "NOT SAVED" in caplog.text


def test_a_state_that_a_failing_step_took_with_it_is_not_saved(tmp_path):
    class Broken(Classifier):
        def create_jitted_functions(self):
            super().create_jitted_functions()
            step = jax.jit(self.train_step, donate_argnums=0)

            def failing(state, batch):
                step(state, batch)
                raise RuntimeError("out of memory")

            self.train_step = failing

    params = {"log_dir": str(tmp_path), "logger_type": "none"}
    trainer = classifier("unused", Broken, logger_params=params)
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        trainer.train_model(loader(), num_epochs=1)
    assert any("could not be saved: TrainingError" in note for note in raised.value.__notes__)
    assert TrainingError.__name__ in str(raised.value.__notes__)


def test_best_newest_and_snapshots_are_on_disk_when_training_returns(tmp_path):
    class Save(Callback):
        def on_step_end(self, view):
            return bx.callbacks.Save() if view.step == 2 else None

    trainer_of(tmp_path, callbacks=[Save()], **EVERY_STEP).train_model(
        loader(70), loader(), num_epochs=2
    )
    assert saved(tmp_path, "saved") == {"2"}
    assert len(saved(tmp_path, "best")) >= 1
    assert "10" in saved(tmp_path)


def test_a_copy_is_not_changed_by_the_steps_that_follow():
    copies, step = (
        Copies(),
        jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0),
    )
    tree = {"w": jnp.zeros(1000), "n": jnp.zeros((), jnp.int32)}
    first = copies.take(tree)
    tree = step(step(tree))
    np.testing.assert_array_equal(first["w"], np.zeros(1000))
    copies.give_back(first)
    second = copies.take(tree)
    np.testing.assert_array_equal(second["w"], np.full(1000, 2.0))
    other = copies.take({"w": jnp.ones(3)})
    np.testing.assert_array_equal(other["w"], np.ones(3))


def test_jobs_run_in_their_order_and_a_busy_saver_says_so():
    done, gate, saver = [], threading.Event(), Saver()
    saver.submit(Job("a", "a", gate.wait))
    saver.submit(Job("b", "b", lambda: done.append("b")))
    assert saver.is_busy_with("a")
    assert saver.is_busy_with("b")
    gate.set()
    saver.submit(Job("c", "c", lambda: done.append("c")))
    saver.wait()
    assert done == ["b", "c"]
    assert not saver.is_busy_with("b")


def test_a_newer_job_of_the_same_kind_takes_the_place_of_one_that_failed():
    done, saver = [], Saver()

    def fail():
        raise OSError("full")

    saver.submit(Job("old", "resume", fail))
    while saver.is_busy_with("resume"):
        pass
    saver.submit(Job("new", "resume", lambda: done.append("new")))
    saver.wait()
    assert [failure.job.what for failure in saver.failures()] == ["old"]
    assert saver.undone() == []
    assert done == ["new"]


def test_an_older_job_that_failed_never_follows_a_newer_one_of_its_kind():
    done, gate, fails, saver = [], threading.Event(), iter([True]), Saver(most_waiting=5)

    def older():
        gate.wait()
        if next(fails, False):
            raise OSError("full")
        done.append("older")

    saver.submit(Job("older", "best", older))
    saver.submit(Job("newer", "best", lambda: done.append("newer")))
    gate.set()
    while saver.is_busy_with("best"):
        pass
    saver.submit(Job("other", "resume", lambda: done.append("other")))
    saver.wait()
    assert done == ["newer", "other"]


@pytest.mark.parametrize(
    ("moment", "is_due"),
    [
        ({"step": 200, "seconds": 0.0}, True),
        ({"step": 201, "seconds": 0.0}, False),
        ({"step": 201, "seconds": 300.0}, True),
        ({"step": 201, "seconds": 0.0, "ended_epoch": 4}, True),
        ({"step": 200, "seconds": 0.0, "ended_epoch": 3}, False),
    ],
)
def test_any_trigger_is_enough(moment, is_due):
    assert Every(steps=100, minutes=5, epochs=2).is_due(**moment) is is_due
    assert Every().is_due(**moment) is False
