"""A terminal for tests: a pseudo-terminal to write to, and the screen that a person would see."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

CONTROL = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What is on a terminal after all that was written to it."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.has_cursor = True

    def feed(self, text: str) -> None:
        for mark, numbers, letter, newline, words in CONTROL.findall(text):
            if words:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = (
                    line[: self.column] + words + line[self.column + len(words) :]
                )
                self.column += len(words)
            elif newline:
                self._return(newline)
            elif letter == "A":
                self.row -= int(numbers or 1)
            elif letter == "K":
                self.lines[self.row] = ""
            elif mark and numbers == "25":
                self.has_cursor = letter == "h"
            elif letter != "m":
                raise AssertionError(f"a control sequence that this screen does not know: {letter}")

    def _return(self, newline: str) -> None:
        self.column = 0
        if newline == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Terminal:
    """A pseudo-terminal: `file` to write to, `screen()` to look at."""

    def __init__(self, file: IO[str], reader: int) -> None:
        self.file = file
        self.raw = ""
        self._reader = reader

    def screen(self) -> Screen:
        self.file.flush()
        while True:
            try:
                self.raw += os.read(self._reader, 65536).decode()
            except BlockingIOError:
                break
        screen = Screen()
        screen.feed(self.raw)
        return screen


@contextmanager
def open_terminal() -> Iterator[Terminal]:
    """Opens a pseudo-terminal."""
    reader, writer = os.openpty()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w", encoding="utf-8") as file:
        yield Terminal(file, reader)
    os.close(reader)
