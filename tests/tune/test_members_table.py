"""The members that train in a study, as a person sees them."""

import io

import pytest
from rich.console import Console

from boltax.tune._members_table import LiveTable, MembersTable, PlainLines, Shown, members_table

MONITOR = ("val/acc", "max")


def members(number):
    return [
        Shown(i, {"lr": 10.0**-i, "features": 64}, epoch=3, value=0.5, best=i / number)
        for i in range(number)
    ]


def drawn(table, width=80):
    console = Console(file=io.StringIO(), width=width, height=24)
    console.print(table.render())
    return console.file.getvalue()


def live(height=24):
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True)
    return LiveTable(MONITOR, 15, 64, console)


def test_each_member_is_a_row_and_the_best_comes_first():
    table = live()
    table.show(members(4))
    lines = [line.split() for line in drawn(table).splitlines()]
    assert lines[1] == ["trial", "epoch", "val/acc", "best", "lr", "features"] or [
        "trial", "epoch", "val/acc", "best", "lr", "features"
    ] in lines  # fmt: skip
    rows = [line for line in lines if len(line) > 1 and line[1] == "3/15"]
    assert [row[0] for row in rows] == ["3", "2", "1", "0"]
    assert rows[0] == ["3", "3/15", "0.5", "0.75", "0.001", "64"]


@pytest.mark.parametrize("width", [40, 60, 200])
def test_the_table_fits_the_terminal(width):
    table = live(height=12)
    table.show(members(30))
    lines = drawn(table, width).splitlines()
    assert len(lines) <= 13
    assert max(map(len, lines)) <= width
    assert any("+" in line for line in lines)


def test_it_counts_what_has_ended_and_names_the_best():
    table = live()
    for shown, state in zip(members(3), ["complete", "pruned", "complete"], strict=True):
        table.ended(shown, state)
    assert "3 of 64 trials ended here (2 complete, 1 pruned)" in drawn(table, 200)
    assert "best val/acc 0.6667 in trial 2" in drawn(table, 200)


def test_a_live_table_leaves_one_line(capsys):
    table = live()
    with table:
        table.show(members(2))
        table.ended(members(1)[0], "complete")
    assert "1 of 64 trials" in table._console.file.getvalue().splitlines()[-1]


def test_lines_where_there_is_no_terminal(capsys):
    with members_table(MONITOR, 15, 64, is_shown=True) as table:
        assert isinstance(table, PlainLines)
        table.show(members(2))
        table.ended(members(2)[1], "pruned")
        table.waits()
        table.waits()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "trial 1 pruned after epoch 3, best val/acc 0.5: lr=0.1, features=64"
    assert said[1:2] == ["waiting for the trials of other workers"]
    assert said[2].startswith("1 of 64 trials ended here (1 pruned)")


def test_nothing_is_shown_when_nothing_is_wanted(capsys):
    with members_table(MONITOR, 15, 64, is_shown=False) as table:
        assert type(table) is MembersTable
        table.ended(members(1)[0], "complete")
    assert capsys.readouterr().out == ""
