"""Every field of a run's files, edited by somebody: the answer is an error that names it.

The edits are made to a run that can be resumed, with manifests that fit. `EDITS` is the table.
"""

import json
import os
import shutil

import pytest

from boltax.checkpoint import BestCheckpoints, RunDirectory, RunLock
from boltax.checkpoint._manifest import write_manifest
from boltax.errors import BoltaxError, CheckpointError, RunDirectoryError
from dummies import Classifier, classifier, loader

HUGE = 10**18
PROGRESS = {
    "step": [-5, HUGE, 1.5, "3", None, True, 7],
    "epoch": [-1, HUGE, 2.5, "1", None, False],
    "stage": ["dance", 3, None, ["train"]],
    "total_steps": [-1, 10**30, "x"],
    "stop_reason": [3, ["why"]],
    "seconds": [-1, "1", None, {"__float__": "nan"}, {"__float__": "inf"}, 1e300],
    "seconds_of_epoch": [-1, [], {"__float__": "-inf"}],
    "best": [3, "x", [1]],
    "best_steps": [3, None, [-1], ["1"], [1.5], [[1]], {"a": 1}],
    "record": [None, 3, [1]],
    "row": [None, "x"],
    "logged": [None, 1.5],
    "history": [None, 3, [3], {"a": 1}],
    "callbacks": [None, 3, {"a": 1}],
    "extra": [None, 3, [1]],
    "config": [None, 3, "x"],
    "devices": [0, -1, "1", None],
    "time": [None, 3],
    "data": [None, 3, [1]],
}
DATA = {
    "cursor": [3, "x", [1], {"epoch": -1, "batch": 0}, {"epoch": 1}],
    "fingerprint": [None, 3, "x"],
    "processes": [0, "1", None, HUGE],
}
EDITS = [(name, value) for name, values in PROGRESS.items() for value in values]
EDITS += [(f"data.{name}", value) for name, values in DATA.items() for value in values]
EDITS += [(name, ...) for name in PROGRESS] + [(f"data.{name}", ...) for name in ("fingerprint",)]


def trainer_in(folder):
    params = {"log_dir": str(folder), "logger_type": "none"}
    return classifier("unused", logger_params=params)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "good"
    trainer_in(folder).train_model(loader(14), loader(14), num_epochs=2)
    return folder


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """One for all edits: what is refused leaves it as it was."""
    return trainer_in(tmp_path_factory.mktemp("own") / "run")


@pytest.fixture
def edited(good, tmp_path):
    """Makes a copy of the good run, whose newest progress was edited."""

    def edit(change):
        folder = shutil.copytree(good, tmp_path / "run")
        newest = max(RunDirectory(folder).resume.iterdir(), key=lambda path: int(path.name))
        for other in RunDirectory(folder).resume.iterdir():
            if other != newest:
                shutil.rmtree(other)
        path = newest / "progress.json"
        record = json.loads(path.read_text())
        change(record["progress"])
        path.write_text(json.dumps(record))
        (newest / "manifest.json").unlink()
        write_manifest(newest)
        return folder

    return edit


def test_the_run_that_all_are_made_of_can_be_resumed(edited, trainer):
    trainer_in(edited(lambda progress: None)).train_model(
        loader(14), loader(14), num_epochs=3, resume=True
    )


@pytest.mark.parametrize(("name", "value"), EDITS, ids=str)
def test_an_edited_field_of_the_progress_is_an_error_that_names_it(edited, trainer, name, value):
    def change(progress):
        *around, last = name.split(".")
        place = progress[around[0]] if around else progress
        if value is ...:
            del place[last]
        else:
            place[last] = value

    folder = edited(change)
    step = int(trainer.state.step)
    with pytest.raises(BoltaxError) as raised:
        trainer.train_model(loader(14), loader(14), num_epochs=3, resume=str(folder))
    text = str(raised.value)
    assert name.rpartition(".")[2] in text, text
    assert "progress.json" in text or name == "data.cursor", text
    assert int(trainer.state.step) == step


def _named(name, value):
    def change(hparams):
        hparams["constructor"]["named"][name] = value

    return change


def _whole(name, value):
    return lambda hparams: hparams.__setitem__(name, value)


EMPTY = {"__array__": {"dtype": "float32", "shape": [10**12, 0], "values": []}}
FULL = {"__array__": {"dtype": "float32", "shape": [10**12], "values": [1.0]}}
HPARAMS = {
    "an array of 10^12 entries": (_named("model_hparams", {"features": FULL}), "features"),
    "an empty array of 10^12 rows": (_named("model_hparams", {"features": EMPTY}), "features"),
    "an example of 10^12 entries": (
        _whole("exmp_input", {"array": [10**12], "dtype": "bool"}),
        "example batch of 1,000,000,000,000 bytes",
    ),
    "an empty example of 10^12 columns": (
        _whole("exmp_input", {"array": [0, 10**12], "dtype": "float32"}),
        "example batch of",
    ),
    "a layer of 10^12 features": (_named("model_hparams", {"features": 10**12}), "shape"),
    "a list of model_hparams": (_named("model_hparams", [1, 2]), "model_hparams"),
    "a number as model_hparams": (_named("model_hparams", 3), "model_hparams"),
    "a seed of 71 bits": (_named("seed", 2**70), "seed"),
    "a text as seed": (_named("seed", "x"), "seed"),
    "a list as seed": (_named("seed", [1]), "seed"),
    "a number as callbacks": (_named("callbacks", 3), "callbacks"),
    "a number as model": (_named("model_class", 3), "model_class"),
    "a number as loop": (_named("loop", 3), "loop"),
    "too many positional arguments": (
        lambda hparams: hparams["constructor"].__setitem__("positional", [1] * 20),
        "arguments that the constructor does not take",
    ),
    "no constructor": (_whole("constructor", [1]), "constructor"),
}


@pytest.mark.parametrize("name", HPARAMS)
def test_an_edited_hyperparameter_is_an_error_that_names_it(good, tmp_path, name):
    change, answer = HPARAMS[name]
    folder = RunDirectory(shutil.copytree(good, tmp_path / "run"))
    hparams = json.loads(folder.hparams.read_text())
    change(hparams)
    folder.hparams.write_text(json.dumps(hparams))
    with pytest.raises(BoltaxError) as raised:
        Classifier.load_from_checkpoint(folder.path)
    assert answer in str(raised.value)


def test_a_lock_that_is_a_pipe_is_refused_and_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with (
        pytest.raises(RunDirectoryError, match=r"\.lock, which is no file but a pipe"),
        RunLock(tmp_path),
    ):
        pass


def test_what_stands_in_a_lock_is_no_command(tmp_path):
    from boltax.checkpoint._lock import _taken

    evil = {"pid": "1; rm -rf ~", "host": "\x1b[2J", "since": "2026-01-01T00:00:00+00:00"}
    text = str(_taken(tmp_path, evil))
    assert "rm -rf" not in text
    assert "\x1b" not in text
    assert "since 2026-01-01T00:00:00+00:00" in text


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "array_metadatas/process_0"])
def test_damaged_arrays_print_nothing_beside_the_error(good, tmp_path, capfd, name):
    folder = RunDirectory(shutil.copytree(good, tmp_path / "run"))
    (best,) = folder.best.iterdir()
    (best / "variables" / name).write_bytes(b"\x80\x04garbage" * 20)
    (best / "manifest.json").unlink()
    write_manifest(best)
    try:
        BestCheckpoints(folder.best).restore()
    except CheckpointError as error:
        assert str(best) in str(error)  # noqa: PT017 - some of the files are never looked at
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err
