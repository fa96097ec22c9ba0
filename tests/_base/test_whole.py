"""Whole numbers of NumPy are whole numbers wherever one is asked for, and become Python's."""

import json

import numpy as np
import pytest

import boltax as bx
from boltax._base._whole import is_whole
from boltax.callbacks import EarlyStopping, LogFigure, Profiler, Timer
from boltax.errors import ConfigurationError
from boltax.optim import build
from boltax.tune._space import SearchSpace
from dummies import Classifier, Plain, classifier, loader


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.int32(3)])
def test_each_kind_of_whole_number_is_one(value):
    assert is_whole(value)
    assert is_whole(value, 3)
    assert not is_whole(value, 4)


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, np.float32(3), "3", None, [3]])
def test_what_is_none_is_none(value):
    assert not is_whole(value)
    with pytest.raises(ConfigurationError):
        bx.LoopOptions(log_every=value if value is not None else "None")


def test_options_hold_numbers_of_python():
    loop = bx.LoopOptions(
        log_every=np.int64(5), steps_per_execution=np.int32(2), ema=np.float32(0.5)
    )
    kept = bx.CheckpointOptions(
        every_steps=np.int64(4), keep_last=np.uint8(0), every_minutes=np.float32(2)
    )
    assert loop == bx.LoopOptions(log_every=5, steps_per_execution=2, ema=0.5)
    assert kept == bx.CheckpointOptions(every_steps=4, keep_last=0, every_minutes=2.0)
    values = [loop.log_every, loop.steps_per_execution, loop.ema, kept.every_steps]
    assert [type(value) for value in values] == [int, int, float, int]
    assert json.loads(json.dumps([*values, kept.keep_last, kept.every_minutes])) == [
        5, 2, 0.5, 4, 0, 2.0
    ]  # fmt: skip


def test_callbacks_take_them():
    figure = LogFigure("f", lambda view: None, every_n_epochs=np.int64(2))
    stopping = EarlyStopping("val/loss", patience=np.int64(2))
    assert (stopping.patience, figure.every_n_epochs) == (2, 2)
    assert Profiler(first_step=np.int64(3), num_steps=np.int64(2)).next_step(0) == 2
    assert Timer(np.float32(60)) is not None


def test_optimizers_and_spaces_take_them():
    described = build({"lr": np.float32(0.5), "warmup": np.int64(10)}, total_steps=100).describe
    assert "warmup 10 of 100" in described
    form = SearchSpace({"width": (np.int64(2), np.int64(8)), "lr": ("log", np.float32(0.5), 1)})
    assert form.to_json() == SearchSpace({"width": (2, 8), "lr": ("log", 0.5, 1.0)}).to_json()


def test_a_trainer_takes_them_and_is_loaded_with_numbers_of_python(tmp_path):
    trainer = classifier(
        tmp_path,
        model_class=Plain,
        seed=np.int64(3),
        check_val_every_n_epoch=np.int32(1),
        loop=bx.LoopOptions(log_every=np.int64(1)),
        depth=np.int64(4),
    )
    trainer.train_model(
        loader(32, np.int64(16)), loader(16), num_epochs=np.int64(2), max_steps=np.int64(3)
    )
    loaded = Classifier.load_from_checkpoint(trainer.log_dir)
    assert (trainer.run.step, loaded.seed, loaded.hparams["depth"]) == (3, 3, 4)
    assert type(loaded.loop.log_every) is int
