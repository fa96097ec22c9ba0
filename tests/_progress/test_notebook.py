"""A notebook's output: one, updated in place, seldom."""

import pytest

from boltax._progress._notebook import NotebookDisplay
from boltax._progress._tracked import Tracked


class Outputs:
    """The outputs of a cell, and how often each was drawn."""

    def __init__(self):
        self.bundles = []
        self.drawings = 0

    def __call__(self, bundle):
        self.bundles.append(bundle)
        place = len(self.bundles) - 1

        def update(changed):
            self.bundles[place] = changed
            self.drawings += 1

        return update

    @property
    def texts(self):
        return [bundle["text/plain"] for bundle in self.bundles]


@pytest.fixture
def outputs():
    return Outputs()


@pytest.fixture
def display(outputs, clock):
    return NotebookDisplay(outputs, clock)


def track(display, items, **kwargs):
    return Tracked(items, lambda: display, total=len(items), **kwargs)


def test_a_run_has_one_output(display, outputs, clock):
    for _ in (outer := track(display, range(3), desc="Epochs")):
        for _ in track(display, range(10), desc="Training", leave=False):
            clock.now += 1
        outer.set_metrics({"loss": 0.25})
    assert len(outputs.bundles) == 1
    (line,) = outputs.texts[0].splitlines()
    assert line.startswith("Epochs  ")
    assert "3/3" in line
    assert "loss 0.250" in line


def test_the_inner_bar_shows_while_it_runs(display, outputs, clock):
    for _ in track(display, range(1), desc="Epochs"):
        for item in track(display, range(3), desc="Training", leave=False):
            clock.now += 1
            assert item == 0 or f"{item}/3" in outputs.texts[0]


def test_it_is_drawn_at_most_four_times_a_second(display, outputs, clock):
    for _ in track(display, range(1000), desc="Training"):
        clock.now += 0.001
    assert outputs.drawings <= 5


def test_the_html_has_the_bar_in_colours(display, outputs):
    list(track(display, range(2), desc="<b>"))
    html = outputs.bundles[0]["text/html"]
    assert html.startswith("<pre")
    assert "<span style=" in html
    assert "&lt;b&gt;" in html


def test_a_quick_bar_that_vanishes_leaves_no_output(display, outputs):
    list(track(display, range(100), desc="Validation", leave=False))
    assert outputs.bundles == []


def test_notes_stand_above_the_bars_and_stay(display, outputs):
    for _ in track(display, range(1), desc="Epochs"):
        display.note("compiled the train step in 3.2 s")
    note, bar = outputs.texts[0].splitlines()
    assert note == "compiled the train step in 3.2 s"
    assert bar.startswith("Epochs")


def test_a_note_without_bars_is_printed(display, outputs, capsys):
    display.note("stopped")
    assert capsys.readouterr().out == "stopped\n"
    assert outputs.bundles == []


def test_a_status_shows_at_once(display, outputs):
    for _ in track(display, range(1), desc="Epochs"):
        display.show_status("compiling the train step")
        assert "compiling the train step ..." in outputs.texts[0]
        display.hide_status("compiling the train step")
    assert "compiling" not in outputs.texts[0]


def test_the_next_run_has_its_own_output(display, outputs):
    list(track(display, range(2), desc="One"))
    list(track(display, range(2), desc="Two"))
    assert [text[:3] for text in outputs.texts] == ["One", "Two"]


def test_a_long_note_is_whole_and_breaks_between_words(display, outputs):
    words = " ".join(f"word{number}" for number in range(40))
    for _ in track(display, range(1), desc="Epochs"):
        display.note(words)
    assert outputs.texts[0].split()[:40] == words.split()
