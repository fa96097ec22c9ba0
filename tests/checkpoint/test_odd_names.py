"""Folders with names that mean something to a shell or to a search for files."""

import json

import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback
from boltax.checkpoint import BestCheckpoints, RunDirectory, _manifest, _orbax
from boltax.checkpoint._report import compare_checkpoints, describe_checkpoint, list_checkpoints
from boltax.errors import CheckpointError, RunDirectoryError
from boltax.loggers import History
from dummies import Classifier, classifier, loader

NAMES = [
    "lr=[0.1]",
    "[!a]",
    "a*b",
    "**",
    "what?",
    "{a,b}",
    "back\\slash",
    "two words",
    "größe 日本",
    "a%5Bb#c",
]


class Interrupt(Callback):
    def on_training_epoch_end(self, view):
        if view.epoch == 2:
            raise KeyboardInterrupt


def trainer_in(folder, **options):
    params = {"log_dir": str(folder), "logger_type": "csv"}
    checkpoint = bx.CheckpointOptions(every_epochs=1)
    return classifier("unused", logger_params=params, checkpoint=checkpoint, **options)


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*b ?", "größe {1,2}"])
def test_a_run_trains_loads_resumes_and_reports(tmp_path, name):
    folder = tmp_path / name / "run"
    with pytest.raises(KeyboardInterrupt):
        trainer_in(folder, callbacks=[Interrupt()]).train_model(loader(70), loader(), num_epochs=3)
    trainer = trainer_in(folder)
    metrics = trainer.train_model(loader(70), loader(), loader(), num_epochs=3, resume=True)
    assert "test/acc" in metrics
    assert [row["epoch"] for row in History(folder / "history.csv").rows()] == [1, 2, 3]
    report = list_checkpoints(folder)
    assert "all good" in report.text
    loaded = Classifier.load_from_checkpoint(folder)
    for one, other in zip(
        *(t.state.params["Dense_0"].values() for t in (trainer, loaded)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    step = RunDirectory(folder).resume / str(15)
    assert "arrays" in describe_checkpoint(step).text
    assert "0 differences in structure" in compare_checkpoints(folder, step).text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_read_whatever_its_folder_is_called(tmp_path, name):
    for number, folder in enumerate((tmp_path / name, tmp_path / "neighbour", tmp_path / "axb")):
        best = BestCheckpoints(folder / "checkpoints" / "best")
        best.save(3, {"params": {"w[0]": np.full(300, number, np.float32)}}, {})
    read = BestCheckpoints(tmp_path / name / "checkpoints" / "best").restore()
    np.testing.assert_array_equal(read.variables["params"]["w[0]"], np.zeros(300))
    assert not list_checkpoints(tmp_path / name).is_damaged


def test_links_for_such_folders_are_gone_afterwards(tmp_path, monkeypatch):
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setattr(_orbax.tempfile, "gettempdir", lambda: str(links))
    best = BestCheckpoints(tmp_path / "[a]")
    best.save(3, {"params": {"w": np.ones(3)}}, {})
    best.restore()
    assert list(links.iterdir()) == []
    monkeypatch.setattr(_orbax.tempfile, "gettempdir", lambda: str(tmp_path / "[b]"))
    assert best.restore().step == 3


def test_a_save_whose_arrays_are_not_found_again_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_orbax, "_PATTERN", _orbax.re.compile("never"))
    with pytest.raises(RunDirectoryError, match=r"manifest\.ocdbt is missing after the save"):
        BestCheckpoints(tmp_path / "[a]").save(3, {"params": {"w": np.ones(3)}}, {})


def test_arrays_without_their_index_are_not_called_good(tmp_path):
    """As an earlier version left them in such a folder."""
    best = BestCheckpoints(RunDirectory(tmp_path).best)
    best.save(3, {"params": {"w": np.ones(300)}}, {})
    folder = tmp_path / "checkpoints" / "best" / "3"
    (folder / "variables" / "manifest.ocdbt").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["variables/manifest.ocdbt"]
    (folder / "manifest.json").write_text(_manifest._text(manifest["files"]))
    report = list_checkpoints(tmp_path)
    assert report.is_damaged
    assert "lack their index" in report.text
    with pytest.raises(CheckpointError, match="lack their index"):
        best.restore()
