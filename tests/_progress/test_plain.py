"""Plain lines: which, and how many."""

import io
import re
import time

import pytest

from boltax._progress import _plain
from boltax._progress._plain import PlainDisplay
from boltax._progress._tracked import Tracked


@pytest.fixture
def file():
    return io.StringIO()


@pytest.fixture
def display(file, clock):
    return PlainDisplay(file, clock)


def track(display, items, **kwargs):
    return Tracked(items, lambda: display, total=len(items), **kwargs)


def run_epochs(display, clock, epochs, steps, seconds_per_step, *, break_in=None):
    for epoch in (outer := track(display, range(1, epochs + 1), desc="Epochs", unit="epoch")):
        for _ in (bar := track(display, range(steps), desc="Training", leave=False)):
            clock.now += seconds_per_step
            bar.advance_examples(100)
            bar.set_metrics({"loss": 0.31, "acc": 0.91})
        outer.set_metrics({"train/loss": 1 / epoch})
        if epoch == break_in:
            break


def test_one_line_for_each_epoch(display, file, clock):
    run_epochs(display, clock, epochs=3, steps=10, seconds_per_step=0.1)
    assert file.getvalue().splitlines() == [
        "epoch 1/3  1.0 s/epoch  loss 1.000  0:00:02 left",
        "epoch 2/3  1.0 s/epoch  loss 0.500  0:00:01 left",
        "epoch 3/3  1.0 s/epoch  loss 0.333",
    ]


def test_a_long_epoch_has_lines_within(display, file, clock):
    run_epochs(display, clock, epochs=1, steps=1380, seconds_per_step=0.25)
    lines = file.getvalue().splitlines()
    assert lines[0] == (
        "epoch 1/1  training step 141/1380  400 examples/s  loss 0.310  acc 0.910  0:05:09 left"
    )
    assert len(lines) <= 11


@pytest.mark.parametrize(
    "steps,seconds_per_step,most",
    [(1000, 0.01, 0), (1000, 0.1, 3), (100_000, 0.01, 10), (50, 60.0, 10)],
)
def test_lines_within_are_as_rare_as_a_tenth_and_half_a_minute(
    display, file, clock, steps, seconds_per_step, most
):
    run_epochs(display, clock, epochs=1, steps=steps, seconds_per_step=seconds_per_step)
    within = [line for line in file.getvalue().splitlines() if "training" in line]
    assert most - 2 <= len(within) <= most


def test_a_bar_that_stays_has_a_line_at_its_end(display, file, clock):
    for _ in (bar := track(display, range(40), desc="Testing")):
        clock.now += 0.1
        bar.advance_examples(128)
    assert file.getvalue() == "testing step 40/40  1,280 examples/s  in 0:00:04\n"


def test_a_bar_that_vanishes_has_none(display, file):
    assert list(track(display, range(40), desc="Testing", leave=False)) == [*range(40)]
    assert file.getvalue() == ""


def test_an_epoch_left_by_break_has_its_line(display, file, clock):
    run_epochs(display, clock, epochs=9, steps=10, seconds_per_step=0.1, break_in=2)
    assert [line[:9] for line in file.getvalue().splitlines()] == ["epoch 1/9", "epoch 2/9"]


def test_a_loop_around_others_has_lines_without_the_unit_epoch(display, file):
    for _ in track(display, range(2), desc="Folds"):
        list(track(display, range(3), desc="Training", leave=False))
    assert [line[:9] for line in file.getvalue().splitlines()] == ["folds 1/2", "folds 2/2"]


def test_a_validation_between_two_steps_gives_no_line_to_each_of_the_others(display, file, clock):
    for step in track(display, range(50), desc="Training", leave=False):
        clock.now += 0.1
        if step == 20:
            list(track(display, range(3), desc="Validation", leave=False))
    assert file.getvalue() == ""


def test_an_unknown_total(display, file, clock):
    for _ in Tracked(iter(range(50)), lambda: display, desc="Training", leave=False):
        clock.now += 1
    assert file.getvalue() == "training step 30  1.0 step/s\n"


def test_no_control_characters(display, file, clock):
    run_epochs(display, clock, epochs=2, steps=100, seconds_per_step=1.0)
    display.note("a note")
    assert re.fullmatch(r"[ -~\n]*", file.getvalue())


def test_characters_that_the_file_does_not_know_are_replaced(clock):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PlainDisplay(file, clock).note("Genauigkeit für Ä")
    file.seek(0)
    assert file.read() == "Genauigkeit f?r ?\n"


def test_a_closed_file_does_not_end_the_run(display, file, clock):
    file.close()
    run_epochs(display, clock, epochs=2, steps=2, seconds_per_step=0.1)
    assert display.is_idle


def test_a_long_status_is_told_before_its_end(display, file, monkeypatch):
    monkeypatch.setattr(_plain, "PATIENCE", 0.01)
    display.show_status("compiling the train step")
    deadline = time.monotonic() + 10
    while not file.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    display.hide_status("compiling the train step")
    assert file.getvalue() == "compiling the train step ...\n"


def test_a_short_status_is_not(display, file):
    display.show_status("compiling")
    display.hide_status("compiling")
    assert file.getvalue() == ""
