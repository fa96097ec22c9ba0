"""What processes tell each other, with threads in their place and a board in this memory."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from boltax.errors import ProcessError
from boltax.parallel._coordination import Board
from boltax.parallel._group import ALONE, Group
from group_dummies import Store, in_each


@pytest.fixture
def store():
    return Store()


def test_all_hear_what_each_says_in_the_order_of_processes(store):
    def twice(group):
        return [group.exchange("numbers", 10 * group.index + n) for n in (1, 2)]

    assert in_each(store, twice) == [[[1, 11, 21], [2, 12, 22]]] * 3
    assert not any(name.startswith("boltax/main/1/") for name in store.texts)  # it does not grow


def test_threads_have_an_order_of_their_own(store):
    def mixed(group):
        names = ("a", "b") if group.is_first else ("b", "a")
        with ThreadPoolExecutor(2) as pool:
            each = [pool.submit(group.exchange, "it", name, thread=name) for name in names]
        return sorted(one.result()[0] for one in each)

    assert in_each(store, mixed) == [["a", "b"]] * 3


def test_what_fails_in_one_fails_in_all(store):
    def act(group):
        return group.together("reading", lambda: 1 // (group.index - 1))

    zero, one, two = in_each(store, act)
    assert isinstance(one, ZeroDivisionError)
    for other in (zero, two):
        assert isinstance(other, ProcessError)
        assert "process 1 from reading: ZeroDivisionError" in str(other)


def test_the_first_process_decides(store):
    done = []

    def act(group):
        return group.of_first("a folder", lambda: done.append(group.index) or "runs/3")

    assert in_each(store, act) == ["runs/3"] * 3
    assert done == [0]


def test_processes_that_differ_are_told_in_what(store):
    def act(group):
        group.check_same("settings", {"lr": 0.1, "seed": 1 + (group.index == 2)})

    found = in_each(store, act)
    assert all("different seed (settings): process 0 has 1, process 2 2" in str(e) for e in found)


def test_a_process_that_does_not_come_is_named(store):
    with pytest.raises(ProcessError, match=r"no word of process 1 for the lock within 0 s"):
        Group(0, 2, Board(store)).exchange("the lock", None, seconds=0.05)


def test_who_waits_for_a_process_that_has_failed_is_told_why(store):
    Group(1, 2, Board(store)).fail(OSError("no such disk"))
    begun = time.monotonic()
    with pytest.raises(ProcessError, match="the end of process 1, which failed: OSError: no such"):
        Group(0, 2, Board(store)).exchange("the lock", None)
    assert time.monotonic() - begun < 30


def test_a_run_that_stands_still_says_where_each_process_is(store):
    first, second = (Group(index, 2, Board(store)) for index in (0, 1))
    for group, where in ((first, "step 8"), (second, "step 7")):
        group.note(where)
        group._stalled(Board(store))
    first.stall_seconds = 0.0
    index, why = first._stalled(Board(store))
    assert index == -1
    assert "process 0 at step 8; process 1 at step 7" in why


def test_alone_there_is_nobody_to_ask():
    assert ALONE.exchange("it", 3) == [3]
    assert ALONE.of_first("it", lambda: 4) == 4
    assert ALONE.is_first
    assert ALONE.is_alone
