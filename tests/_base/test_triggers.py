"""When something is due."""

import pytest

from boltax._base._triggers import Every
from boltax.errors import ConfigurationError


@pytest.mark.parametrize(
    ("trigger", "moment", "is_due"),
    [
        (Every(steps=100), {"step": 200, "seconds": 0.0}, True),
        (Every(steps=100), {"step": 201, "seconds": 1e9}, False),
        (Every(steps=100), {"step": 200, "seconds": 0.0, "ended_epoch": 2}, False),
        (Every(minutes=0.5), {"step": 1, "seconds": 29.9}, False),
        (Every(minutes=0.5), {"step": 1, "seconds": 30.0}, True),
        (Every(minutes=0.5), {"step": 1, "seconds": 30.0, "ended_epoch": 1}, True),
        (Every(epochs=2), {"step": 8, "seconds": 0.0}, False),
        (Every(epochs=2), {"step": 8, "seconds": 0.0, "ended_epoch": 3}, False),
        (Every(epochs=2), {"step": 8, "seconds": 0.0, "ended_epoch": 4}, True),
    ],
)
def test_each_trigger_looks_at_its_own_count(trigger, moment, is_due):
    assert trigger.is_due(**moment) is is_due


def test_nothing_is_due_where_nothing_was_asked_for():
    assert not Every().is_due(step=0, seconds=1e9, ended_epoch=1)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"minutes": -1}, {"epochs": 1.5}, {"minutes": True}]
)
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="or None for never"):
        Every(**wrong)
