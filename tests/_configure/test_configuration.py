"""A run from a file: trained, stored with its whole configuration, and trained again from that."""

import os
from pathlib import Path

import numpy as np
import pytest

import boltax as bx
from boltax import cli
from boltax._configure._configuration import Configuration, first_batch
from boltax._configure._mapping import read_mapping
from boltax._configure._study import study_of
from boltax._process._user_files import find_in_file
from boltax.errors import ConfigurationError

pytest.importorskip("jsonargparse")

TRAIN = '''
import flax.linen as nn
import numpy as np
import boltax as bx
import dummies

class Net(nn.Module):
    """A small network.

    Attributes:
        width: of its layer.
        sizes: of others.
    """

    width: int
    sizes: tuple[int, ...] = ()
    act: object = nn.relu

    @nn.compact
    def __call__(self, x):
        assert isinstance(self.sizes, tuple)
        return nn.Dense(3)(self.act(nn.Dense(self.width)(x)))

class Mine(dummies.Classifier):
    """A trainer.

    Args:
        smoothing: of the labels.
    """

    def __init__(self, *args, smoothing: float = 0.0, **kwargs):
        self.smoothing = smoothing
        super().__init__(*args, smoothing=smoothing, **kwargs)

def make_loaders(size: int = 32, *, batch_size: int = 16):
    """Loaders.

    Args:
        size: examples in all.
    """
    return tuple(dummies.loader(size, batch_size) for _ in range(3))

def one_shot():
    return iter(list(dummies.loader(32)))
'''
CONFIG = """
trainer: train.py:Mine
data: train.py:make_loaders
model_class: Net
model_hparams: {width: 4}
optimizer_hparams: {optimizer: sgd, lr: 1e-1, schedule: constant}
logger_params: {logger_type: csv}
enable_progress_bar: false
monitor: [val/loss, min]
num_epochs: 1
callbacks:
- class_path: EarlyStopping
  init_args: {monitor: val/loss}
hparams: {note: mine}
"""
OPTIONS = ["--optimizer_hparams.lr", "5e-2", "--loop.log_every", "1", "--smoothing=0.1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a run of the file."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    (folder / "train.py").write_text(TRAIN)
    (folder / "config.yaml").write_text(CONFIG)
    os.chdir(folder)
    try:
        assert cli.main(["fit", "config.yaml", *OPTIONS]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(project, monkeypatch):
    monkeypatch.chdir(project)
    return project / "runs/Net/version_0"


def trained(run):
    return find_in_file(f"{run.parents[2]}/train.py:Mine").load_from_checkpoint(run)


def test_the_trainer_got_what_the_file_and_the_options_say(run):
    trainer = trained(run)
    assert trainer.optimizer_hparams == {"optimizer": "sgd", "lr": 5e-2, "schedule": "constant"}
    assert (trainer.loop.log_every, trainer.smoothing) == (1, 0.1)
    assert trainer.model_hparams == {"width": 4, "sizes": ()}
    assert trainer.hparams == {"smoothing": 0.1, "note": "mine"}
    assert trainer.monitor == ("val/loss", "min")
    stored = (run / "hparams.json").read_text()
    assert "EarlyStopping" in stored


def test_the_whole_configuration_lies_with_the_run(run):
    stored = read_mapping(str(run / "config.yaml"))
    assert stored["trainer"] == f"{run.parents[2]}/train.py:Mine"
    assert stored["data_hparams"] == {"size": 32, "batch_size": 16}
    assert stored["loop"]["log_every"] == 1
    assert stored["checkpoint"]["keep_best"] == 1
    assert (stored["seed"], stored["smoothing"]) == (42, 0.1)
    assert stored["callbacks"][0]["init_args"]["patience"] == 3
    assert "act" not in stored["model_hparams"]  # a function; the model's own default stays


def test_a_run_is_trained_again_from_its_folder_and_gone_on_with(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from any folder
    again = ["fit", str(run), "--logger_params.base_log_dir", str(tmp_path / "again")]
    assert cli.main(again) == 0
    name = "metrics/best_eval.json"
    other = tmp_path / "again/Net/version_0"
    assert (other / name).read_bytes() == (run / name).read_bytes()
    assert cli.main(["fit", str(other), "--resume", "--num_epochs", "2"]) == 0
    assert len((other / "history.csv").read_text().splitlines()) == 3
    assert not (other.parent / "version_1").exists()


def test_test_and_predict(run, capsys):
    trainer, loader = trained(run), find_in_file("train.py:make_loaders")(20)[2]
    sized = ["--data", "train.py:make_loaders", "--data_hparams.size", "20"]
    assert cli.main(["test", str(run), *sized]) == 0
    expected = trainer.eval_model(loader)
    assert f"test/loss {expected['loss']:.4g}" in capsys.readouterr().out
    assert cli.main(["predict", str(run), *sized, "--output", "out.npy"]) == 0
    np.testing.assert_array_equal(np.load("out.npy"), trainer.predict_model(loader))
    assert cli.main(["predict", str(run), "--output=all.npz"]) == 0
    assert np.load("all.npz")["outputs"].shape == (32, 3)
    assert cli.main(["predict", str(run), "--output", "out.txt"]) == 2
    assert "Write --output predictions.npz" in capsys.readouterr().err


def test_help_has_each_option_with_its_docstring(run, capsys):
    named = [
        "--trainer",
        "train.py:Mine",
        "--model_class",
        "Net",
        "--data",
        "train.py:make_loaders",
    ]
    assert cli.main(["fit", *named, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--smoothing SMOOTHING of the labels. (type: float, default: 0.0)",
        "--model_hparams.width WIDTH of its layer. (required, type: int)",
        "--data_hparams.size SIZE examples in all. (type: int, default: 32)",
        "--loop.log_every LOG_EVERY steps between two records",
        "--max_steps MAX_STEPS stop after so many steps",
        "--checkpoint.keep_best",
        "--seed SEED of the parameters",
    ):
        assert part in text
    for name in ("test", "predict"):
        assert cli.main([name, "--help"]) == 0
        assert f"usage: boltax {name} RUN" in capsys.readouterr().out


BAD = {
    "a misspelt option": (["--loop.log_evry", "1"], "Did you mean 'loop.log_every'?"),
    "an option elsewhere": (["--lr", "1"], "Did you mean 'optimizer_hparams.lr'?"),
    "one of the model": (["--model_hparams.widht", "1"], "Did you mean 'model_hparams.width'?"),
    "another type": (["--model_hparams.width", "wide"], "Expected a <class 'int'>"),
    "a bad value": (["--loop.precision", "bf61"], "Write precision="),
    "of the optimizer": (["--optimizer_hparams.lrr", "1"], "Did you mean 'lr'?"),
    "no such class": (["--trainer", "train.py:Mien"], "Did you mean 'Mine'?"),
    "no trainer": (["--trainer", "train.py:Net"], "which is no trainer's class"),
    "no such model": (["--model_class", "Nat"], "Did you mean 'Net'?"),
    "no file": (["--trainer", "none.py:Mine"], "expected a Python file and a name in it"),
    "no module": (["--trainer", "no_such.part:Mine"], "there is no module no_such"),
    "no place": (["--trainer", "Mine"], "Write trainer: train.py:NAME"),
    "no function": (["--data", "train.py:Net"], "which is no function"),
    "no such callback": (["--callbacks", "[{class_path: Erly}]"], "does not fit"),
    "a method of it": (["--callbacks", "[{class_path: os.system}]"], "does not fit"),
    "no value": (["--seed"], "--seed without a value"),
    "nothing to resume": (["--resume"], "Write boltax fit RUN --resume"),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_bad_arguments_are_one_message_before_anything_is_made(run, capsys, options, message):
    before = sorted(run.parent.iterdir())
    assert cli.main(["fit", "config.yaml", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("boltax: ")
    assert message in error
    assert "Traceback" not in error
    assert sorted(run.parent.iterdir()) == before


LACKING = {
    "a trainer": ([], "Write --trainer train.py:Classifier"),
    "a model": (["--trainer", "train.py:Mine", "--data", "train.py:one_shot"],
                "without model_class"),
    "data": (["--trainer", "train.py:Mine", "--model_class", "Net", "--model_hparams.width", "3"],
             "without data"),
    "an argument": (["--trainer", "train.py:Mine", "--model_class", "Net"], "model_hparams.width"),
    "a file": (["none.yaml"], "which is no file"),
    "a run": (["."], "which is no run"),
}  # fmt: skip


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("options, message", LACKING.values(), ids=LACKING)
def test_what_is_lacking_is_asked_for(capsys, options, message):
    assert cli.main(["fit", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_error_in_the_users_file_is_told_with_its_line(run, capsys):
    Path("broken.py").write_text("import boltax\n\n1 / 0\n")
    assert cli.main(["fit", "config.yaml", "--trainer", "broken.py:Mine"]) == 1
    assert capsys.readouterr().err.startswith("boltax: broken.py:3: ZeroDivisionError")


def test_a_run_of_another_making_is_tested_with_a_trainer(run, capsys):
    (run / "config.yaml").rename(run / "kept.yaml")
    try:
        assert cli.main(["test", str(run), "--data", "train.py:make_loaders"]) == 2
        assert "Write --trainer train.py:Classifier" in capsys.readouterr().err
        named = ["--trainer", "train.py:Mine", "--data", "train.py:make_loaders"]
        assert cli.main(["test", str(run), *named]) == 0
        assert cli.main(["fit", str(run), "--resume"]) == 2
    finally:
        (run / "kept.yaml").rename(run / "config.yaml")
    assert cli.main(["test"]) == 2


def test_a_run_knows_its_trainer_when_it_is_exported(run, tmp_path, capsys):
    pytest.importorskip("flatbuffers", reason="JAX stores exported programs in it")
    assert cli.main(["export", str(run), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/program.jax").is_file()
    (run / "config.yaml").rename(run / "kept.yaml")
    try:
        assert cli.main(["export", str(run), str(tmp_path / "out")]) == 2
    finally:
        (run / "kept.yaml").rename(run / "config.yaml")
    assert "Write --trainer train.py:Classifier" in capsys.readouterr().err


def test_the_first_batch_of_a_loader_that_is_read_once_is_not_lost():
    batches = [np.zeros(1), np.ones(1)]
    first, loader = first_batch(iter(batches))
    assert first is batches[0]
    assert [*loader] == batches
    assert first_batch(batches)[1] is batches
    with pytest.raises(ConfigurationError, match="without batches"):
        first_batch([])


@pytest.mark.usefixtures("run")
def test_a_space_of_the_file_makes_trainers():
    mapping = {
        **read_mapping("config.yaml"),
        "space": {
            "optimizer_hparams.lr": {"log": [1e-3, 1e-1]},
            "model_hparams.width": [2, 3],
            "loop.ema": {"range": [0.5, 0.9]},
        },
    }
    make_trainer, space, loaders = study_of(mapping)
    assert space == {
        "optimizer_hparams.lr": ("log", 1e-3, 1e-1),
        "model_hparams.width": [2, 3],
        "loop.ema": (0.5, 0.9),
    }
    assert len(loaders) == 3
    trainer = make_trainer(**{"model_hparams.width": 2, "optimizer_hparams.lr": 0.01})
    assert trainer.model_hparams["width"] == 2
    assert trainer.optimizer_hparams["lr"] == 0.01
    for form in ({"log": 3}, "wide", {"lag": [1, 2]}):
        with pytest.raises(ConfigurationError, match=r"expected \{log:"):
            study_of({**mapping, "space": {"seed": form}})
    with pytest.raises(ConfigurationError, match="expected what the study varies"):
        study_of({**mapping, "space": {}})


def test_a_plain_mapping_is_a_configuration(run, tmp_path, monkeypatch):
    for name in ("train.py", "config.yaml"):
        (tmp_path / name).write_bytes((run.parents[2] / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    ml_collections = pytest.importorskip("ml_collections")
    from boltax._base._containers import plain_containers

    config = ml_collections.ConfigDict(read_mapping("config.yaml"))
    found = Configuration.of(plain_containers(config))
    assert found.arguments["optimizer_hparams"]["lr"] == 0.1
    assert found.training == {"num_epochs": 1}
    timed = {"class_path": "boltax.Every", "init_args": {"minutes": 3.0}}
    found = Configuration.of({**read_mapping("config.yaml"), "validate_every": timed})
    assert found.training["validate_every"] == bx.Every(minutes=3)
    found.write(".")
    again = Configuration.of(read_mapping("config.yaml"))
    assert again.training["validate_every"] == bx.Every(minutes=3)
