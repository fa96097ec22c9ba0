"""One validation batch at the start: mistakes show early, and the first steps do not wait."""

import threading
import time

import pytest
from flax import struct

import boltax as bx
from boltax._step import _programs
from boltax.callbacks import Callback
from boltax.errors import MetricsError
from dummies import Classifier, Low, Lowest, classifier, loader


class WrongInEvaluation(Classifier):
    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return (loss, metrics) if train else (loss, metrics["accuracy"])


class Slow(Callback):
    """Has each step take a while."""

    def on_step_end(self, view):
        time.sleep(0.01)


class At(Callback):
    """Sets an event at a step."""

    def __init__(self, step):
        self.step, self.event = step, threading.Event()

    def next_step(self, step):
        return self.step if step < self.step else None

    def on_step_end(self, view):
        self.event.set()


@struct.dataclass
class Named(Lowest):
    """A metric object whose values have names only when they are computed."""

    def compute(self):
        return {"value": self.value}


class WithNames(Low):
    metric = Named


def wrong_monitor(tmp_path, trainer_class=Classifier, **options):
    return classifier(tmp_path, trainer_class, monitor=("val/accuracy", "max"), **options)


@pytest.mark.parametrize("data", ["arrays", "list"])
def test_a_mistake_in_the_code_shows_before_the_first_step(tmp_path, data):
    trainer = classifier(tmp_path, WrongInEvaluation)
    val = loader() if data == "arrays" else list(loader())
    with pytest.raises(KeyError, match="accuracy"):
        trainer.train_model(loader(), val, num_epochs=1)
    assert trainer.run.step == 0


def test_a_monitor_that_does_not_exist_shows_before_the_first_step(tmp_path):
    trainer = wrong_monitor(tmp_path)
    with pytest.raises(MetricsError, match="val/accuracy") as caught:
        trainer.train_model(loader(), loader(), num_epochs=1)
    assert trainer.run.step == 0
    assert any("one validation batch" in note for note in caught.value.__notes__)


def test_what_shows_only_in_values_shows_long_before_the_first_validation(tmp_path):
    trainer = wrong_monitor(tmp_path, WithNames, callbacks=[Slow()])
    with pytest.raises(MetricsError, match="val/lowest/value"):
        trainer.train_model(loader(16_000, 16), loader(), num_epochs=1)
    assert trainer.run.step < 1000


def test_where_nothing_is_compiled_it_shows_before_the_first_step(tmp_path):
    trainer = wrong_monitor(tmp_path, debug=True)
    with pytest.raises(MetricsError, match="val/accuracy"):
        trainer.train_model(loader(), loader(), num_epochs=1)
    assert trainer.run.step == 0


@pytest.mark.parametrize("data", ["arrays", "list"])
def test_steps_do_not_wait_for_the_evaluation_to_be_compiled(tmp_path, monkeypatch, data):
    at, compile_now = At(4), _programs.Program._compile

    def compile_late(program, *args):
        if "evaluation" in program._name:
            assert at.event.wait(timeout=60)
        return compile_now(program, *args)

    monkeypatch.setattr(_programs.Program, "_compile", compile_late)
    trainer = classifier(tmp_path, callbacks=[at])
    train, val = loader(100, 8), loader()
    if data == "list":
        train, val = list(train), list(val)
    metrics = trainer.train_model(train, val, num_epochs=1)
    assert at.event.is_set()
    assert {"val/loss", "val/acc"} <= set(metrics)
    assert trainer.run.sanity_check is None


def test_it_can_be_left_out(tmp_path):
    trainer = wrong_monitor(tmp_path, loop=bx.LoopOptions(sanity_check=False))
    with pytest.raises(MetricsError, match="val/accuracy"):
        trainer.train_model(loader(), loader(), num_epochs=1)
    assert trainer.run.step == trainer.run.train_source.num_batches
