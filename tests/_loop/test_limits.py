"""How long a run may last."""

import time

import pytest

from boltax._loop._limits import Limits, deadline_in, planned_steps


def test_steps_that_are_used_up_are_named():
    limits = Limits(max_steps=5)
    assert limits.reached(4, is_time_up=False) is None
    assert limits.reached(5, is_time_up=False) == "max_steps=5 is reached"


def test_time_that_is_used_up_is_named():
    assert not Limits(deadline=time.monotonic() + 100).is_time_up()
    assert Limits(deadline=deadline_in(0.0)).is_time_up()
    assert Limits().reached(0, is_time_up=True) == "max_time is used up"
    assert deadline_in(None) is None


@pytest.mark.parametrize(
    "max_steps, step, planned, left",
    [(None, 3, None, None), (None, 3, 7, 7), (5, 3, None, 2), (5, 3, 7, 2), (5, 9, 7, 0)],
)
def test_steps_left_are_the_fewer(max_steps, step, planned, left):
    assert Limits(max_steps=max_steps).steps_left(step, planned) == left


@pytest.mark.parametrize(
    "num_epochs, batches, max_steps, total",
    [(3, 4, None, 12), (3, 4, 7, 7), (3, 4, 70, 12), (3, None, 7, 7), (3, None, None, None)],
)
def test_the_steps_of_a_whole_run(num_epochs, batches, max_steps, total):
    assert planned_steps(num_epochs, batches, max_steps) == total


def test_nobody_ends_a_run_before_its_least_epochs_and_steps():
    limits = Limits(min_epochs=2, min_steps=10)
    assert [limits.may_stop(*point) for point in [(1, 10), (2, 9), (2, 10)]] == [0, 0, 1]
