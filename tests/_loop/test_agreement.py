"""What processes decide together; two of them do so in ``parallel/test_several.py``."""

import signal
import time

import pytest

import boltax as bx
from boltax._loop._agreement import Agreement
from boltax._loop._clock import SaveClock
from boltax._loop._limits import Limits
from boltax._loop._run import Run
from boltax._loop._validations import Cadence, Validations
from boltax.parallel._placement import Placement


@pytest.fixture
def run():
    one = Run(clock=SaveClock(bx.Every(minutes=1)))
    one.agreement = Agreement(one, Placement(bx.Parallel(devices=2)))
    return one


def test_a_signal_is_acted_on_when_all_know_of_it(run):
    run.signals.noted = signal.SIGTERM
    heard = []
    for _ in range(3):
        run.agree()
        heard.append(run.signals.received)
    assert heard == [None, None, signal.SIGTERM]


def test_the_wish_of_a_callback_holds_at_once_where_one_was_called(run):
    run.ask_to_stop("EarlyStopping: no better")
    assert not run.should_stop()
    run.agreement.was_told = True
    run.agree()
    assert run.should_stop()
    assert run.stop_reason == "EarlyStopping: no better"


def test_time_is_over_for_all_when_it_is_for_one(run):
    run.limits = Limits(deadline=time.monotonic() - 1)
    assert not run.should_stop()
    run.agree(at_once=True)
    assert run.should_stop()
    assert run.limit_reached == "max_time is used up"


def test_a_save_is_due_by_the_clock_of_the_first_process(run):
    run.clock.saved_at -= 61
    assert not run.clock.ask(3, None)  # the others do not know yet
    run.agree(at_once=True)
    assert run.clock.ask(3, None)
    run.clock.note_saved("here")
    run.agreement.forget()
    assert not run.clock.ask(4, None)


def test_each_cadence_has_a_bit():
    run = Run(validations=Validations(Cadence(bx.Every(minutes=5)), own={"fid": Cadence()}))
    run.validations.own["fid"] = Cadence(bx.Every(minutes=1), last_at=time.monotonic() - 61)
    run.agreement = Agreement(run, Placement(bx.Parallel(devices=2)))
    run.agree(at_once=True)
    assert [run.validations.cadence.is_told, run.validations.own["fid"].is_told] == [False, True]
