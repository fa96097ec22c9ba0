"""Time spans in all their forms, and what a timer asks for."""

from datetime import timedelta

import pytest

from boltax.callbacks import Log, Stop, Timer
from boltax.callbacks._timer import parse_duration
from boltax.errors import ConfigurationError, UnknownNameError


@pytest.mark.parametrize(
    "duration,seconds",
    [
        ("00:00:30", 30),
        ("01:30:00", 5400),
        ("100:00:00", 360_000),
        ("01:12:00:00", 129_600),
        ("00:00:00.5", 0.5),
        (" 00:01:00 ", 60),
        (timedelta(hours=2), 7200),
        (90, 90),
        (0.25, 0.25),
        ({"hours": 1, "minutes": 30}, 5400),
        ({"days": 0.5}, 43_200),
    ],
)
def test_a_duration_has_many_forms(duration, seconds):
    assert parse_duration(duration) == seconds
    assert type(parse_duration(duration)) is float


@pytest.mark.parametrize(
    "duration",
    [
        "",
        "10:30",
        "1h",
        "-01:00:00",
        0,
        -1,
        True,
        float("nan"),
        float("inf"),
        [1],
        {},
        {"hours": "1"},
    ],
)
def test_what_is_no_duration_is_an_error(duration):
    with pytest.raises(ConfigurationError, match=r"Received the duration .*'hh:mm:ss'"):
        Timer(duration)


def test_an_unknown_unit():
    with pytest.raises(UnknownNameError, match=r"unit of time 'hour'.*Did you mean 'hours'"):
        Timer({"hour": 1})


@pytest.mark.parametrize("hook", ["on_log", "on_validation_epoch_end"])
def test_stops_when_its_time_is_used_up(view, hook):
    timer = Timer(60)
    assert getattr(timer, hook)(view(elapsed=59.9)) is None
    stop = getattr(timer, hook)(view(elapsed=61.2))
    assert stop == Stop("the time of 0:01:00 is used up, after 0:01:01")


def test_without_a_duration_it_never_stops(view):
    assert Timer().on_log(view(elapsed=1e9)) is None


def test_logs_the_seconds_of_each_epoch(views):
    seen = views("train/loss", [1.0])[0]
    assert Timer().on_training_epoch_end(seen) == [Log({"time/epoch": 2.0})]


def test_logs_and_stops_at_once(view):
    seen = view(elapsed=61.0, history=({"epoch": 1, "time/train": 2.0},))
    log, stop = Timer(60).on_training_epoch_end(seen)
    assert log == Log({"time/epoch": 2.0})
    assert isinstance(stop, Stop)


def test_an_epoch_of_unknown_time_is_not_logged(view):
    assert Timer().on_training_epoch_end(view()) == []
