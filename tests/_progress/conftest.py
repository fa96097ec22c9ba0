"""Clocks and terminals for the tests of progress."""

import pytest

from terminal import open_terminal


class Clock:
    """A time that the test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal of 80 columns; `attach` makes it the standard output."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    with open_terminal() as opened:
        yield opened


@pytest.fixture
def attach(terminal, monkeypatch):
    """Called in a test, makes the terminal its standard output and standard error.

    Not done by the fixture itself, because pytest sets the streams of each test at its start.
    """

    def do():
        monkeypatch.setattr("sys.stdout", terminal.file)
        monkeypatch.setattr("sys.stderr", terminal.file)

    return do
