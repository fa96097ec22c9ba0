"""Whoever waits for the first model of a process sees its size, once."""

import threading

import numpy as np

from boltax._build import _memory
from boltax._step._initialise import call_model
from boltax.models._adapter import adapt
from dummies import Plain


def test_the_first_model_is_looked_at_once_and_what_is_said_is_shown(monkeypatch):
    seen, shown = [], []

    def look(count_values):
        seen.append(count_values())
        return "a hint"

    monkeypatch.setattr(_memory, "before_first_model", [look, lambda count: None])
    monkeypatch.setattr(_memory, "_has_looked", threading.Event())
    example = [np.ones((8, 4), np.float32)]
    for _ in range(2):
        _memory.look_at_first_model(adapt(Plain, {}), call_model, example, {}, shown.append)
    assert len(seen) == 1
    assert seen[0] >= 4 * 8 * (6 + 3)  # the outputs of its two layers
    assert shown == ["a hint"]


def test_a_model_that_fails_has_no_size(monkeypatch):
    seen = []
    monkeypatch.setattr(_memory, "before_first_model", [lambda count: seen.append(count())])
    monkeypatch.setattr(_memory, "_has_looked", threading.Event())
    _memory.look_at_first_model(adapt(Plain, {}), call_model, ["text"], {}, seen.append)
    assert seen == [0]
