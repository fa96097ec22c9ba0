"""A run while it lasts: its counters are replaced, its limits asked, its place in the data told."""

import time

from boltax._loop._counters import Counters, Stage
from boltax._loop._limits import Limits
from boltax._loop._run import Run
from dummies import loader


def test_an_epoch_begins_without_what_belongs_to_the_one_before():
    run = Run(counters=Counters(epoch=1, step=7, record={"a": 1}, row={"b": 2}, logged={"c": 3}))
    run.metrics.interval = run.metrics.epoch = []
    run.begin_epoch()
    assert (run.epoch, run.step, run.stage) == (2, 7, Stage.TRAIN)
    assert (run.counters.record, run.counters.row, run.counters.logged) == ({}, {}, {})
    assert run.metrics.interval is run.metrics.epoch is None


def test_steps_are_counted_with_their_examples_and_the_place_of_the_last_batch():
    run = Run()
    run.begin_epoch()
    run.count_steps(3, 8, {"epoch": 1, "batch": 3})
    assert (run.step, run.metrics.examples, run.counters.steps_done) == (3, 24, 3)
    assert run.place() == {"epoch": 1, "batch": 3}


def test_a_limit_of_a_call_ends_it_and_not_the_run():
    run = Run(Limits(max_steps=3), Counters(step=3))
    assert run.should_stop()
    assert run.stop_reason == "max_steps=3 is reached"
    assert not run.is_asked_to_stop
    assert run.counters.to_json()["stop_reason"] is None


def test_what_a_callback_asks_for_holds_after_a_resume():
    run = Run()
    run.ask_to_stop("Mine: enough")
    again = Run()
    again.go_on_from(Counters.from_json(run.now().to_json()))
    assert again.is_over
    assert again.stop_reason == "Mine: enough"


def test_the_seconds_of_a_run_go_on_from_those_of_the_checkpoint():
    run = Run()
    run.go_on_from(Counters(seconds=100.0, seconds_of_epoch=10.0))
    time.sleep(0.01)
    now = run.now()
    assert 100.0 < now.seconds < 101.0
    assert 10.0 < now.seconds_of_epoch < 11.0


def test_a_loader_is_opened_once():
    run, data = Run(), loader()
    assert run.source(data, "train_loader") is run.source(data, "train_loader")
    assert run.known_source(data) is run.source(data, "train_loader")
