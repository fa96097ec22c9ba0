"""Writes docs/commands.md: every command with its options, as the parsers have them.

    python scripts/commands_page.py

A test compares the page with what this makes of the parsers.
"""

# ruff: noqa: SLF001 -- argparse has no public way to its arguments
import argparse
import re
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# All commands

Made of the parsers by `scripts/commands_page.py`; `boltax COMMAND --help` prints the same.
[The command line](guides/command_line.md) shows them at work.
"""
FIT = """
Options are arguments of the trainer and of `train_model` by their names, with dots for what is in
them: `--optimizer_hparams.lr 3e-4`, `--loop.precision bf16`, `--max_steps 10000`.
"""


def page() -> str:
    """The page as Markdown."""
    from boltax.cli import EACH

    parser = argparse.ArgumentParser(prog="boltax")
    commands = parser.add_subparsers()
    for add in EACH:
        add(commands)
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    parts = [part(name, command, helps[name]) for name, command in commands.choices.items()]
    return "\n".join([HEAD, *parts])


def part(name: str, command: argparse.ArgumentParser, title: str | None) -> str:
    """One command: its name, what it is for, and a table of what it takes."""
    text = f"## `boltax {name}`\n\n{sentence(title)}\n\n{literal(command.description)}\n"
    rows = "".join(row for action in command._actions for row in rows_of(action))
    if rows:
        return f"{text}\n| argument | |\n|---|---|\n{rows}"
    return text + FIT if name == "fit" else text  # these read their arguments by themselves


def rows_of(action: argparse.Action) -> Iterator[str]:
    if isinstance(action, argparse._HelpAction):
        return
    value = shown(action).replace("|", "\\|")
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    if not names or action.nargs != 0:
        names = f"{names} `{value}`".strip()
    yield f"| {names} | {literal(action.help)} |\n"


def shown(action: argparse.Action) -> str:
    """What stands for the value of an argument."""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    choices = "{" + ",".join(map(str, action.choices or ())) + "}"
    value = action.metavar or (choices if action.choices else action.dest.upper())
    several = {"*": f"[{value} ...]", "+": f"{value} ...", "?": f"[{value}]"}
    return several.get(str(action.nargs), value)


def sentence(text: str | None) -> str:
    return f"{(text or '')[:1].upper()}{(text or '')[1:]}."


def literal(text: str | None) -> str:
    """Text in which nothing is taken for Markdown, and options are code."""
    parts = re.split(r"(--[\w.-]*\w)", (text or "").replace("%%", "%"))
    escaped = [re.sub(r"([\\<>*_|\[\]`])", r"\\\1", part) for part in parts]
    return "".join(f"`{parts[n]}`" if n % 2 else escaped[n] for n in range(len(parts)))


if __name__ == "__main__":
    PAGE.write_text(page())
