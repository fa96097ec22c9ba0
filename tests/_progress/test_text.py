"""Numbers as words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._progress._text import (
    count_text,
    duration,
    metrics_text,
    number,
    past,
    rate_text,
    room_for,
    short_duration,
    took,
)
from boltax._progress._tracked import NoDisplay, Tracked


@pytest.mark.parametrize(
    "seconds,text,short",
    [(0, "0:00:00", "00:00"), (62.9, "0:01:02", "01:02"), (90061, "25:01:01", "25:01:01")],
)
def test_duration(seconds, text, short):
    assert duration(seconds) == text
    assert short_duration(seconds) == short


@pytest.mark.parametrize("seconds,text", [(3.21, "3.2 s"), (59.9, "59.9 s"), (62, "0:01:02")])
def test_took(seconds, text):
    assert took(seconds) == text


@pytest.mark.parametrize(
    "text,expected",
    [
        ("compiling the train step", "compiled the train step"),
        ("initialising the model", "initialised the model"),
        ("setting up", "set up"),
        ("rest", "rest: done"),
    ],
)
def test_past(text, expected):
    assert past(text) == expected


@pytest.mark.parametrize(
    "value,text",
    [
        (0.0, "0.000"),
        (0.31249, "0.312"),
        (-12.345, "-12.35"),
        (123.45, "123.5"),
        (1234.5, "1,234"),
        (1e-5, "1.00e-05"),
        (2.5e7, "2.50e+07"),
        (1234, "1,234"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array([0.5]), jnp.float32(0.5), jnp.bfloat16(0.5)],
    ids=["float", "numpy scalar", "numpy array", "jax array", "bfloat16"],
)
def test_metrics_of_any_scalar_type(value):
    assert metrics_text({"loss": value}) == "loss 0.500"


def test_metrics_leave_out_arrays_and_what_is_no_number():
    shown = metrics_text({"matrix": np.eye(2), "phase": "warm", "other": object(), "none": None})
    assert shown == "phase warm"


def test_metrics_leave_out_a_donated_array():
    gone = jnp.ones(())
    gone.delete()
    assert metrics_text({"gone": gone, "loss": 0.5}) == "loss 0.500"


def test_metrics_are_fetched_where_transfers_are_forbidden():
    loss = jnp.float32(0.5)
    with jax.transfer_guard("disallow"):
        assert metrics_text({"loss": loss}) == "loss 0.500"


def test_the_training_loss_comes_first_and_the_rest_as_it_is_given():
    metrics = {"val/acc": 0.9, "val/loss": 0.4, "train/acc": 0.8, "train/loss": 0.3}
    shown = "train/loss 0.300  val/acc 0.900  val/loss 0.400  train/acc 0.800"
    assert metrics_text(metrics) == shown
    assert metrics_text({"acc": 0.9, "loss": 0.4}) == "loss 0.400  acc 0.900"


@pytest.mark.parametrize("number", range(1, 6))
def test_the_room_for_metrics_is_just_enough(number):
    metrics = {"train/loss": 0.3, "val/loss": 0.4, "val/acc": 0.9, "matrix": np.eye(2)}
    room = room_for(metrics, number)
    assert metrics_text(metrics, room).count("0.") == min(number, 3)
    assert metrics_text(metrics, room - 1).count("0.") < min(number, 3)
    assert room_for({}, number) == 0


def test_metrics_keep_phases_that_differ():
    assert metrics_text({"train/loss": 1.0, "lr": 0.1}) == "train/loss 1.000  lr 0.100"


@pytest.mark.parametrize("room", range(60))
def test_metrics_never_exceed_their_room(room):
    text = metrics_text({"train/loss": 0.3, "val/loss": 0.4, "val/acc": 0.9}, room)
    assert len(text) <= room
    assert text.endswith("…") or text in ("", "train/loss 0.300  val/loss 0.400  val/acc 0.900")


def bar_with(counts, **kwargs):
    bar = Tracked([], NoDisplay, **kwargs)
    for now, count, examples in counts:
        bar.pace.sample(now, count, examples)
        bar.count = count
    return bar


@pytest.mark.parametrize(
    "counts,text,narrow",
    [
        ([(0, 0, 0)], "", ""),
        ([(0, 0, 0), (1, 10, 1234)], "1,234 examples/s", "1,234 ex/s"),
        ([(0, 0, 0), (1, 2, 3)], "3.0 examples/s", "3.0 ex/s"),
        ([(0, 0, 0), (1, 12, 0)], "12.0 epoch/s", "12.0 epoch/s"),
        ([(0, 0, 0), (10, 4, 0)], "2.5 s/epoch", "2.5 s/epoch"),
    ],
)
def test_rate(counts, text, narrow):
    bar = bar_with(counts, unit="epoch")
    assert rate_text(bar) == text
    assert rate_text(bar, is_wide=False) == narrow


def test_count():
    assert count_text(bar_with([(0, 3, 0)], total=138)) == "  3/138"
    assert count_text(bar_with([(0, 3, 0)])) == "3"
