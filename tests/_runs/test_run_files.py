"""A run as its folder has it."""

from pathlib import Path

import pytest

import dummies
from boltax._runs._run_files import direction, read_run
from boltax.checkpoint._end_file import End, write_end
from boltax.checkpoint._lock import RunLock
from run_folders import make_run


def test_a_run_that_a_trainer_made(trained):
    run = read_run(trained.log_dir)
    assert (run.model, run.state, run.step, run.epoch) == ("Plain", "finished", 4, 2)
    assert run.metrics["val/loss"] == trained.run.best["val/loss"]
    assert run.monitor == ("val/acc", "max")
    assert run.hyperparameters["optimizer_hparams.lr"] == 1e-2
    assert run.hyperparameters["loop.log_every"] == 1
    assert [row["val/loss"] for row in run.history] == [r["val/loss"] for r in trained.run.history]
    assert run.seconds["compile"] > 0
    assert 0 <= run.age < 600
    assert {"path", "age_seconds", "metrics"} <= run.to_json().keys()


def test_the_state_of_a_run(tmp_path):
    folder = make_run(tmp_path / "run", how="failed", reason="ValueError: no")
    assert (read_run(folder).state, read_run(folder).reason) == ("failed", "ValueError: no")
    with RunLock(folder):
        assert read_run(folder).state == "running"
    (folder / "end.json").unlink()  # as when the process was killed
    assert (read_run(folder).state, read_run(folder).step) == ("interrupted", 30)
    (folder / "history.csv").unlink()
    assert read_run(folder).state == "new"


class Failing(dummies.Classifier):
    def on_training_epoch_end(self, epoch_idx):
        assert not Path(self.log_dir, "end.json").exists()
        raise KeyError("gone")


def test_a_run_that_raises_and_one_that_never_began(tmp_path):
    params = {"log_dir": str(tmp_path), "logger_type": "none"}
    trainer = dummies.classifier("unused", Failing, dummies.Plain, logger_params=params)
    write_end(tmp_path, End("finished", None, 1, 1, {}))  # of an earlier training
    with pytest.raises(KeyError):
        trainer.train_model(dummies.loader(16), num_epochs=1)
    run = read_run(tmp_path)
    assert (run.state, run.reason, run.step) == ("failed", "KeyError: 'gone'", 1)
    with pytest.raises(ValueError, match="loader"):
        trainer.train_model(3, num_epochs=1)
    assert read_run(tmp_path).reason == "KeyError: 'gone'"


def test_max_time_stops_and_max_steps_finishes(tmp_path):
    for name, limit, state in [
        ("a", {"max_time": 1e-6}, "stopped"),
        ("b", {"max_steps": 1}, "finished"),
    ]:
        params = {"log_dir": str(tmp_path / name), "logger_type": "none"}
        trainer = dummies.classifier("unused", model_class=dummies.Plain, logger_params=params)
        trainer.train_model(dummies.loader(48), num_epochs=2, **limit)
        assert read_run(tmp_path / name).state == state


def test_damaged_files_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run")
    for name in ("hparams.json", "end.json", "metrics/best_eval.json", "history.csv"):
        (folder / name).write_text('{"a": ')
    run = read_run(folder)
    assert (run.model, run.history, run.best, run.step) == ("?", (), {}, 0)
    assert run.tested == {"test/acc": 0.375}


@pytest.mark.parametrize(
    "metric, expected", [("val/acc", "max"), ("val/loss", "min"), ("val/score", "max")]
)
def test_direction(tmp_path, metric, expected):
    assert direction((read_run(make_run(tmp_path / "run")),), metric) == expected
