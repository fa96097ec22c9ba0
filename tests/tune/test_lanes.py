"""Groups that go off side by side on a CPU: each once, in order, with the numbers of one by one."""

import threading

import jax
import pytest

from boltax.tune._lanes import Lanes, most_lanes

CPU = jax.local_devices()[0]


@pytest.fixture
def lanes():
    made = Lanes()
    yield made
    made.close()


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_each_group_goes_off_once_and_the_first_in_this_thread(lanes, most):
    sent = []
    lanes.each(7, lambda index: sent.append((index, threading.get_ident())), most, CPU)
    assert sorted(index for index, _ in sent) == list(range(7))
    assert sent[0] == (0, threading.get_ident())
    by_thread = {thread: [i for i, of in sent if of == thread] for _, thread in sent}
    assert len(by_thread) == min(most, 7)
    assert all(own == sorted(own) for own in by_thread.values())


def test_groups_of_different_lanes_do_not_wait_for_each_other(lanes):
    meeting = threading.Barrier(2, timeout=60)
    lanes.each(3, lambda index: index and meeting.wait(), 2, CPU)  # broken when one comes alone
    assert not meeting.broken


def test_an_error_in_a_lane_comes_when_all_lanes_have_ended(lanes):
    sent = []

    def send(index):
        if index == 1:
            raise ValueError("of lane 1")
        sent.append(index)

    with pytest.raises(ValueError, match="of lane 1"):
        lanes.each(6, send, 2, CPU)
    assert sent == [0, 2, 4]
    lanes.each(2, sent.append, 2, CPU)
    assert sorted(sent[3:]) == [0, 1]


def test_lanes_have_the_default_device_of_the_population(lanes):
    seen = {}
    other = jax.local_devices()[1]
    with jax.default_device(other):
        lanes.each(2, lambda i: seen.update({i: jax.numpy.zeros(()).devices()}), 2, other)
    assert seen == {0: {other}, 1: {other}}


def test_closed_lanes_leave_no_thread_and_open_again(lanes):
    before = threading.active_count()
    lanes.each(4, lambda _: None, 4, CPU)
    assert threading.active_count() == before + 3
    lanes.close()
    assert threading.active_count() == before
    seen = []
    lanes.each(4, seen.append, 4, CPU)
    assert sorted(seen) == [0, 1, 2, 3]


def test_several_devices_and_accelerators_have_one_lane():
    class Accelerator:
        platform = "gpu"

    assert most_lanes(jax.local_devices()) == most_lanes([Accelerator()]) == 1
    assert most_lanes([CPU]) >= 1
