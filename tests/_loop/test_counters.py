"""The counters of a run: what a resume checkpoint holds of them, and nothing lost on the way."""

import dataclasses
import json
import math

import numpy as np
import pytest

from boltax._loop._counters import Counters, Stage

FULL = Counters(
    epoch=3,
    step=41,
    stage=Stage.VALIDATE,
    cursor={"epoch": 3, "batch": 13},
    record={"train/loss": 0.1, "train/counts": np.array([1, 2])},
    row={"epoch": 3, "train/loss": 0.1},
    logged={"mine": 2.5},
    best={"val/loss": math.nan},
    history=({"epoch": 1, "train/loss": 1.0}, {"epoch": 2, "train/loss": 0.5}),
    stop_reason="Mine: enough",
    seconds=12.5,
    seconds_of_epoch=1.25,
)


def test_counters_come_back_as_they_were():
    stored = FULL.to_json()
    again = Counters.from_json(stored)
    for field in dataclasses.fields(Counters):
        np.testing.assert_equal(getattr(again, field.name), getattr(FULL, field.name))


def test_counters_before_the_first_step_come_back():
    assert Counters.from_json(json.loads(json.dumps(Counters().to_json()))) == Counters()


def test_every_counter_is_stored():
    stored = FULL.to_json()
    flat = {**stored, **stored["data"]}
    assert {field.name for field in dataclasses.fields(Counters)} <= flat.keys()


@pytest.mark.parametrize("name", ["epoch", "stage", "history", "stop_reason", "data"])
def test_a_missing_counter_is_no_default(name):
    stored = FULL.to_json()
    del stored[name]
    with pytest.raises(KeyError, match=name):
        Counters.from_json(stored)


def test_counters_are_replaced_and_never_written():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.step = 42
    assert dataclasses.replace(FULL, step=42).point == (3, Stage.VALIDATE, 42)


def test_steps_of_an_epoch_that_are_done_follow_from_the_cursor():
    assert FULL.steps_done == 13
    assert dataclasses.replace(FULL, epoch=4).steps_done == 0
