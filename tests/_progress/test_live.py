"""Bars in a terminal, seen as a person sees them."""

import io
import logging
import sys
import time

import pytest

from boltax._progress._live import LiveDisplay, is_taken, is_terminal
from boltax._progress._tracked import Tracked


@pytest.fixture
def display(terminal):
    shown = LiveDisplay(terminal.file)
    yield shown
    shown.close()


def track(display, items, **kwargs):
    return Tracked(items, lambda: display, total=len(items), **kwargs)


def look(display, terminal):
    """The screen after the next drawing."""
    display._live.refresh()
    return terminal.screen().text


def test_bars_stand_below_each_other_and_inner_ones_vanish(display, terminal):
    for _ in (outer := track(display, range(2), desc="Epochs", unit="epoch")):
        for _ in (inner := track(display, range(3), desc="Training", leave=False)):
            inner.set_metrics({"loss": 0.25})
            first, second = look(display, terminal).splitlines()
            assert first.startswith("Epochs  ")
            assert second.startswith("Training  ")
            assert second.endswith("loss 0.250")
        assert "Training" not in look(display, terminal)
        outer.set_metrics({"loss": 0.125})
    (left,) = terminal.screen().text.splitlines()
    assert left.startswith("Epochs  ━━━━━━━━  2/2")
    assert left.endswith("loss 0.125")


def test_the_thread_draws_the_count_by_itself(display, terminal):
    for item in track(display, range(2), desc="Training"):
        deadline = time.monotonic() + 10
        while f"{item}/2" not in terminal.screen().text and time.monotonic() < deadline:
            time.sleep(0.02)
        assert f"{item}/2" in terminal.screen().text


def test_prints_and_logs_stand_above_unbroken_bars(display, terminal, attach):
    attach()
    sink = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("of a user")
    logger.addHandler(sink)
    for number in track(display, range(2), desc="Epochs"):
        print("print", number)
        sys.stderr.write(f"error {number}\n")
        logger.warning("log %d", number)
    print("after")
    logger.removeHandler(sink)
    lines = terminal.screen().text.splitlines()
    assert lines[:6] == ["print 0", "error 0", "log 0", "print 1", "error 1", "log 1"]
    assert lines[6].startswith("Epochs  ━")
    assert lines[7:] == ["after"]
    assert sink.stream is terminal.file


def test_a_note_stands_above_the_bars(display, terminal):
    for _ in track(display, range(1), desc="Epochs"):
        display.note("compiled [the] train step in 3.2 s")
        note, bar = look(display, terminal).splitlines()
        assert note == "compiled [the] train step in 3.2 s"
        assert bar.startswith("Epochs")


def test_a_status_shows_its_text_and_goes(display, terminal):
    display.show_status("compiling the train step")
    assert "compiling the train step" in look(display, terminal)
    display.hide_status("compiling the train step")
    assert terminal.screen().text == ""
    assert terminal.screen().has_cursor


def test_the_cursor_is_hidden_only_while_there_are_bars(display, terminal):
    for _ in track(display, range(1)):
        assert not terminal.screen().has_cursor
    assert terminal.screen().has_cursor


def test_an_exception_leaves_the_terminal_clean(display, terminal, attach):
    attach()
    stdout = sys.stdout

    def train():
        for _ in track(display, range(3), desc="Epochs"):
            for _ in track(display, range(3), desc="Training", leave=False):
                raise KeyboardInterrupt("by hand")

    with pytest.raises(KeyboardInterrupt, match="by hand"):
        train()
    screen = terminal.screen()
    assert screen.has_cursor
    assert screen.text.startswith("Epochs")
    assert "Training" not in screen.text
    assert sys.stdout is stdout


def test_close_ends_what_nobody_iterates_over_any_more(display, terminal, attach):
    attach()
    kept = iter(track(display, range(3), desc="Kept"))
    next(kept)
    assert is_taken()
    display.close()
    display.close()
    assert not is_taken()
    assert display.is_idle
    assert terminal.screen().has_cursor


def test_streams_that_go_elsewhere_are_left_alone(terminal, attach, monkeypatch):
    attach()
    piped = io.StringIO()
    monkeypatch.setattr("sys.stderr", piped)
    display = LiveDisplay(terminal.file)
    for _ in track(display, range(1)):
        assert sys.stderr is piped
        assert sys.stdout is not terminal.file


def test_a_terminal_that_hangs_up_does_not_end_the_run():
    class Lost(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    display = LiveDisplay(Lost())
    for _ in track(display, range(2), desc="Epochs"):
        display.note("unseen")
    assert display.is_idle


@pytest.mark.parametrize("term,expected", [("xterm", True), ("dumb", False)])
def test_a_terminal_must_move_its_cursor(terminal, monkeypatch, term, expected):
    monkeypatch.setenv("TERM", term)
    assert is_terminal(terminal.file) is expected


def test_a_file_is_no_terminal_even_where_colours_are_forced(terminal, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not is_terminal(io.StringIO())
