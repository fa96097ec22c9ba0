"""Arguments that belong elsewhere are refused with the line that does what was meant."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import boltax as bx
from boltax._build._foreign_options import LINES, check_hyperparameters
from boltax._build._remade import rebuild
from boltax.checkpoint._files import read_json, write_json
from boltax.errors import ConfigurationError
from dummies import Classifier, classifier

CASES = {
    "max_epochs": (2, r"Write trainer.train_model\(train_loader, val_loader, num_epochs=2\)"),
    "epochs": (3, r"num_epochs=3\)"),
    "num_epoch": (3, r"num_epochs=3\)"),
    "resume": (True, r"resume=True\)"),
    "devices": (4, 'Write parallel="data"'),
    "accelerator": ("gpu", "JAX chooses the device"),
    "precision": ("bf16", r"Write loop=boltax.LoopOptions\(precision='bf16'\)"),
    "log_every": (10, r"Write loop=boltax.LoopOptions\(log_every=10\)"),
    "every_steps": (5, r"Write checkpoint=boltax.CheckpointOptions\(every_steps=5\)"),
    "keep_best": (3, r"Write checkpoint=boltax.CheckpointOptions\(keep_best=3\)"),
    "optimizer": ({"name": "adam"}, r'Write optimizer_hparams=\{"optimizer": "adamw"'),
    "lr": (0.1, r'Write optimizer_hparams=\{"lr": 0.1\}'),
    "accumulate_grad_batches": (4, r"Write loop=boltax.LoopOptions\(microbatches=4\)"),
    "default_root_dir": ("x", r"Write logger_params=\{\"base_log_dir\": 'x'\}"),
    "run_eagerly": (True, "Write debug=True"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_name_from_elsewhere_is_refused_with_the_line_to_write(tmp_path, name):
    value, message = CASES[name]
    with pytest.raises(ConfigurationError, match=message) as caught:
        classifier(tmp_path, **{name: value})
    assert f"Received {name}=" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_option_and_every_argument_of_train_model_is_known():
    kinds = (bx.LoopOptions, bx.CheckpointOptions)
    fields = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    arguments = list(inspect.signature(bx.TrainerModule.train_model).parameters)[1:]
    for name in [*fields, *arguments, *LINES]:
        with pytest.raises(ConfigurationError, match=f"Received {name}=1 .*Write .*own another"):
            check_hyperparameters({name: 1}, "Trainer", ())


def test_each_line_can_be_written():
    own = set(inspect.signature(bx.TrainerModule).parameters)
    for name, line in LINES.items():
        first = re.match(r"(\w+)=", line)
        assert first is None or first[1] in own, name
        for option in re.findall(r"LoopOptions\((\w+)=", line):
            assert hasattr(bx.LoopOptions(), option)


def test_real_hyperparameters_are_stored_and_reach_the_loss(tmp_path):
    free = {"temperature": 0.5, "margin": 1, "momentum": 0.9, "batch_size": 64, "beta": 0.1, "n": 2}
    trainer = classifier(tmp_path, **free)
    assert trainer.hparams == free


def test_a_run_of_an_older_version_that_kept_such_a_name_can_be_loaded(tmp_path):
    trainer = classifier(tmp_path)
    path = Path(trainer.log_dir) / "hparams.json"
    stored = read_json(path)
    stored["constructor"]["named"]["max_epochs"] = 2
    write_json(path, stored)
    assert rebuild(Classifier, path.parent, None, {}).hparams == {"max_epochs": 2}


def test_a_subclass_may_have_an_argument_of_such_a_name(tmp_path):
    class Own(Classifier):
        def __init__(self, *args, lr, **kwargs):
            super().__init__(*args, **{**kwargs, "optimizer_hparams": {"lr": lr}})

    assert classifier(tmp_path, Own, lr=0.3).optimizer_hparams == {"lr": 0.3}
