"""A second run deletes nothing of the first, and each folder describes the run that it holds."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback
from boltax.checkpoint import BestCheckpoints, RunDirectory
from boltax.checkpoint._report import list_checkpoints
from boltax.errors import CheckpointError, DataError, RunDirectoryError
from boltax.loggers import CsvLogger, Logger
from boltax.tune import Population
from dummies import Classifier, Linear, Plain, classifier, loader, to_host

ALL_FILES = (
    "end.json",
    "history.csv",
    "metrics.csv",
    "metrics/best_eval.json",
    "model.txt",
    "hparams.json",
)


class Failure(Exception):
    """Stands for a fault in the user's code."""


class Falling(Classifier):
    """Has an accuracy that falls from run to run, so that the best model is that of the first."""

    runs = 0

    def on_training_start(self):
        type(self).runs += 1

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        eval_metrics["val/acc"] = 1.0 / self.runs


def make(folder, trainer_class=Classifier, *, rate=1e-2, **options):
    settings = {
        "model_class": Plain,
        "optimizer_hparams": {"lr": rate, "schedule": "constant"},
        "logger_params": {"log_dir": str(folder), "logger_type": "csv"},
    }
    return classifier("unused", trainer_class, **settings | options)


def train(trainer, **options):
    return trainer.train_model(loader(32, 16), loader(16, 16), **{"num_epochs": 1} | options)


def chosen(folder, **options):
    params = {"base_log_dir": str(folder), "logger_type": ["csv", "TensorBoard"]}
    return make("unused", logger_params=params, **options)


def files(folder):
    """All files of a run but the lock, with what is in them."""
    paths = (p for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock")
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    return {name: data for name, data in found.items() if not name.startswith("earlier/")}


def best(folder):
    """The best model of a run, with NumPy's arrays."""
    found = BestCheckpoints(RunDirectory(folder).best).restore()
    return found._replace(variables=to_host(found.variables))


def rate_in(folder):
    stored = json.loads(RunDirectory(folder).hparams.read_text())
    assert stored["constructor"]["named"]["optimizer_hparams"] == stored["optimizer_hparams"]
    return stored["optimizer_hparams"]["lr"]


def test_in_a_folder_that_the_user_named_the_earlier_run_moves_as_a_whole(tmp_path, caplog):
    Falling.runs = 0
    train(make(tmp_path, Falling, rate=1e-2), num_epochs=2)
    before, first = files(tmp_path), best(tmp_path)
    second = make(tmp_path, Falling, rate=3e-2)
    assert files(tmp_path) == before  # nothing is overwritten before anything is trained
    second.logger.log_metrics({"of_now": 1.0}, step=0)  # opens its file again
    before = files(tmp_path)
    train(second)
    earlier = tmp_path / "earlier" / "0"
    assert files(earlier) == before
    assert caplog.text.count("begins a new run") == 1
    assert "is now in earlier/0" in caplog.text
    assert set(ALL_FILES) < set(files(tmp_path))
    assert (rate_in(earlier), rate_in(tmp_path)) == (1e-2, 3e-2)
    assert (first.metrics["val/acc"], best(tmp_path).metrics["val/acc"]) == (1.0, 0.5)
    for folder in (earlier, tmp_path):
        loaded = Falling.load_from_checkpoint(folder)
        np.testing.assert_equal(to_host(loaded.state.params), best(folder).variables["params"])
    np.testing.assert_equal(best(earlier).variables, first.variables)
    assert "of_now" not in (tmp_path / "metrics.csv").read_text()


def test_where_boltax_chose_the_folder_a_further_run_gets_a_version_of_its_own(tmp_path, caplog):
    trainer = chosen(tmp_path)
    train(trainer)
    before, first = files(trainer.log_dir), trainer.log_dir
    loss = trainer.eval_model(loader(16, 16))["loss"]
    train(trainer)
    assert Path(trainer.log_dir) == Path(trainer.logger.log_dir) == tmp_path / "Plain" / "version_1"
    assert files(first) == before
    assert all(log.log_dir == trainer.log_dir for log in trainer.logger.loggers)
    assert set(ALL_FILES) < set(files(trainer.log_dir))
    assert len(list(Path(trainer.log_dir).glob("events.out.tfevents.*"))) == 1
    assert "begins a new run in Plain/version_1. The one before stays in" in caplog.text
    trainer.load_model()  # that of its newest run, which went on with the parameters
    assert trainer.eval_model(loader(16, 16))["loss"] < loss
    loaded = Classifier.load_from_checkpoint(first)
    train(loaded)
    assert Path(loaded.log_dir).name == "version_2"
    assert files(first) == before
    assert rate_in(loaded.log_dir) == 1e-2
    stored = json.loads(RunDirectory(loaded.log_dir).hparams.read_text())
    assert "log_dir" not in {**stored["logger_params"], **loaded.config["logger_params"]}
    again = Classifier.load_from_checkpoint(loaded.log_dir)
    assert again._made.versions_in == str(tmp_path / "Plain")
    train(trainer, num_epochs=2, resume=True)
    assert (Path(trainer.log_dir).name, trainer.run.step) == ("version_1", 4)


def test_what_is_printed_is_true(tmp_path, caplog):
    train(make(tmp_path), num_epochs=2)
    train(make(tmp_path))
    place = "earlier/0"
    assert f"load_from_checkpoint({place!r}) has its best model" in caplog.text
    assert f"train_model(..., resume={place!r}) goes on with it" in caplog.text
    trainer = make(tmp_path)
    train(trainer, num_epochs=3, resume=place)
    assert trainer.run.step == 6
    assert _columns(tmp_path)["epoch"] == ("1", "2", "3")
    assert {p.name for p in (tmp_path / "earlier").iterdir()} == {"0", "1"}


def _columns(folder):
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    return dict(zip(lines[0], zip(*lines[1:], strict=True), strict=True))


def test_a_run_that_goes_on_is_described_by_what_it_goes_on_with(tmp_path):
    train(make(tmp_path))
    trainer = make(tmp_path, rate=3e-2, note="more")
    assert rate_in(tmp_path) == 1e-2
    with pytest.raises(CheckpointError):
        train(make(tmp_path, model_class=Linear), resume=True)
    assert rate_in(tmp_path) == 1e-2  # what is refused changes nothing
    train(trainer, num_epochs=2, resume=True)
    assert json.loads((tmp_path / "hparams.json").read_text())["note"] == "more"
    assert not (tmp_path / "earlier").exists()


def test_what_is_refused_before_it_begins_moves_nothing(tmp_path):
    trainer = chosen(tmp_path)
    train(trainer)
    before, folder = files(tmp_path), trainer.log_dir
    with pytest.raises(DataError):
        trainer.train_model(3, num_epochs=1)
    with pytest.raises(CheckpointError, match="nowhere"):
        train(trainer, resume=str(tmp_path / "nowhere"))
    assert (files(tmp_path), trainer.log_dir) == (before, folder)


def test_a_run_that_ended_before_its_first_step_needs_no_second_folder(tmp_path):
    class Once(Callback):
        is_first = True

        def on_training_start(self, view):
            if self.is_first:
                self.is_first = False
                raise Failure

    trainer = chosen(tmp_path, callbacks=[Once()])
    trainer.logger.log_text("note", "before")
    trainer.save_snapshot()
    with pytest.raises(Failure):
        train(trainer)
    train(trainer)
    assert Path(trainer.log_dir).name == "version_0"


def test_a_killed_run_without_checkpoints_leaves_its_records_to_itself(tmp_path):
    make(tmp_path, rate=3e-2)
    CsvLogger(tmp_path).log_metrics({"train/step/loss": 9.0}, step=2)
    trainer = make(tmp_path, loop=bx.LoopOptions(log_every=1))
    train(trainer)
    assert "9.0" in (tmp_path / "earlier" / "0" / "metrics.csv").read_text()
    assert "9.0" not in (tmp_path / "metrics.csv").read_text()
    assert (rate_in(tmp_path / "earlier" / "0"), rate_in(tmp_path)) == (3e-2, 1e-2)
    assert f"an earlier run is in {tmp_path / 'earlier' / '0'}" in list_checkpoints(tmp_path).text


def test_resume_without_a_checkpoint_keeps_the_best_model(tmp_path):
    options = {"checkpoint": bx.CheckpointOptions(keep_last=0)}
    train(make(tmp_path, **options))
    first = best(tmp_path)
    train(make(tmp_path, **options), resume=True)
    np.testing.assert_equal(best(tmp_path / "earlier" / "0").variables, first.variables)


def test_a_logger_that_the_user_has_set_stays(tmp_path):
    class Memory(Logger):
        def __init__(self):
            self.steps = []

        def log_metrics(self, metrics, step=None):
            self.steps.append(step)

    trainer = chosen(tmp_path)
    trainer.logger = bx.loggers.LoggerGroup([memory := Memory()])
    train(trainer)
    number = len(memory.steps)
    train(trainer)
    assert len(memory.steps) == 2 * number
    assert Path(trainer.log_dir).name == "version_1"


def test_a_folder_of_the_users_own_init_logger_is_not_made_again(tmp_path):
    class Own(Classifier):
        def init_logger(self, logger_params):
            (tmp_path / "mine").mkdir()
            self.log_dir, self.logger = str(tmp_path / "mine"), CsvLogger(tmp_path / "mine")

    trainer = make("unused", Own)
    train(trainer)
    before = files(trainer.log_dir)
    train(trainer)
    assert files(tmp_path / "mine" / "earlier" / "0") == before


def test_the_lock_goes_along(tmp_path):
    refused = []

    class Beside(Callback):
        def on_training_end(self, view):
            def again():
                with pytest.raises(RunDirectoryError):
                    train(trainer)
                refused.append(trainer.log_dir)

            thread = threading.Thread(target=again)
            thread.start()
            thread.join()

    trainer = chosen(tmp_path, callbacks=[Beside()])
    train(trainer)
    train(trainer)
    assert [Path(folder).name for folder in refused] == ["version_0", "version_1"]
    assert [p.name for p in (tmp_path / "Plain").iterdir() if "2" in p.name] == []


def test_a_population_keeps_the_members_of_the_one_before(tmp_path):
    def population():
        return Population(make(tmp_path), [{"seed": 0}, {"seed": 1}], members_per_step=2)

    first = population()
    first.train_model(loader(32, 16), loader(16, 16), 2)
    before = files(tmp_path)
    second = population()
    second.train_model(loader(32, 16), loader(16, 16), 1)
    assert files(tmp_path / "earlier" / "0") == before
    assert {"members.csv", "members/000/hparams.json"} < set(files(tmp_path))
    loaded = Classifier.load_from_checkpoint(tmp_path / "earlier" / "0" / "members" / "001")
    assert loaded.seed == 1
