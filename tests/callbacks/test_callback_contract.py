"""What every callback that comes with boltax keeps to; a new one is one row."""

import copy
import json

import pytest

import boltax.callbacks as package
from boltax.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    LogFigure,
    ModelSummary,
    Profiler,
    Timer,
)
from boltax.callbacks._base import HOOKS, as_callbacks, as_requests, overriding
from boltax.callbacks._states import callback_states, load_callback_states

SHIPPED = {
    "EarlyStopping": lambda: EarlyStopping("val/loss"),
    "EarlyStopping on training": lambda: EarlyStopping("train/loss"),
    "LearningRateMonitor": LearningRateMonitor,
    "LogFigure": lambda: LogFigure("image", lambda view: [[0.0, 1.0]]),
    "ModelSummary": ModelSummary,
    "Profiler": lambda: Profiler(first_step=1000),
    "Timer": lambda: Timer("00:10:00"),
    "Timer without end": Timer,
}
PHASES = {
    "on_validation_epoch_end": "val",
    "on_test_end": "test",
    "on_training_epoch_end": "train",
    "on_log": "train",
}


@pytest.fixture(params=SHIPPED)
def callback(request):
    return SHIPPED[request.param]()


def views_of_a_run(view):
    """The hooks of two epochs with what they see, in their order."""
    rows = ()
    for epoch in (1, 2):
        for hook in HOOKS:
            phase = PHASES.get(hook, "train")
            metrics = {f"{phase}/loss": 1 / epoch} if hook in PHASES else {}
            if hook == "on_training_epoch_end":
                rows = (*rows, {"epoch": epoch, "step": 10 * epoch, "time/train": 2.0} | metrics)
            yield hook, view(phase=phase, epoch=epoch, metrics=metrics, history=rows)


def test_every_shipped_callback_is_in_the_table():
    classes = {type(make()) for make in SHIPPED.values()}
    shipped = {getattr(package, name) for name in package.__all__}
    callbacks = {c for c in shipped if isinstance(c, type) and issubclass(c, Callback)}
    assert classes == callbacks - {Callback}


def test_it_is_a_callback_with_something_to_do(callback):
    assert as_callbacks([callback]) == (callback,)
    assert any(overriding([callback], hook) for hook in HOOKS)


def test_every_hook_returns_requests(callback, view):
    for hook, seen in views_of_a_run(view):
        assert isinstance(ask(callback, hook, seen), tuple)


def test_it_keeps_nothing_of_the_run(callback, view):
    before = copy.copy(vars(callback))
    for hook, seen in views_of_a_run(view):
        if hook != "on_exception":
            getattr(callback, hook)(seen)
    assert vars(callback) == before


@pytest.mark.parametrize("name", SHIPPED)
def test_after_a_resume_it_asks_for_what_it_asks_for_without(name, view):
    hooks = list(views_of_a_run(view))
    half = len(hooks) // 2
    whole, before, after = (SHIPPED[name]() for _ in range(3))
    for hook, seen in hooks[:half]:
        ask(whole, hook, seen)
        ask(before, hook, seen)
    load_callback_states([after], json.loads(json.dumps(callback_states([before]))))
    for hook, seen in hooks[half:]:
        assert repr(ask(after, hook, seen)) == repr(ask(whole, hook, seen))


def ask(callback, hook, seen):
    arguments = (seen, ValueError("boom")) if hook == "on_exception" else (seen,)
    return as_requests(getattr(callback, hook)(*arguments), callback, hook)


def test_it_asks_for_no_single_steps(callback):
    assert not overriding([callback], "on_step_end") or callback.next_step(0) > 1


def test_it_documents_an_example(callback):
    assert ">>>" in type(callback).__doc__
