import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from boltax.errors import RunDirectoryError
from boltax.loggers._table import Table


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "table.csv"


def table(path):
    return Table(str(path), key="step")


def test_rows_are_appended(path):
    rows = table(path)
    rows.append({"step": 1, "a": 0.5})
    before = path.stat().st_ino
    rows.append({"step": 2, "a": 0.25})
    assert path.read_text() == "step,a\n1,0.5\n2,0.25\n"
    assert path.stat().st_ino == before


def test_a_row_with_a_known_key_is_merged(path):
    rows = table(path)
    rows.append({"step": 1, "a": 0.5, "b": 1.0})
    rows.append({"step": 2, "a": 0.75, "b": 10.5})
    rows.append({"step": 2, "b": 2.0})
    rows.append({"step": 1, "b": 3.0})
    assert [row["b"] for row in rows.rows()] == [3.0, 2.0]
    rows.settle()
    assert path.read_text() == "step,a,b\n1,0.5,3.0\n2,0.75,2.0\n"


def test_a_new_column_gets_a_place_in_the_header(path):
    rows = table(path)
    rows.append({"step": 1, "a": 0.5})
    rows.append({"step": 2, "b": 1})
    rows.append({"step": 3, "a": 0.1})
    assert path.read_text() == "step,a,b\n1,0.5,\n2,,1\n3,0.1,\n"


def test_late_rows_are_appended_and_put_in_order_later(path):
    rows = table(path)
    for step in (10, 30, 20):
        rows.append({"step": step, "a": step})
    rows.append({"step": 20, "a": 21})
    rows.append({"step": 30, "a": 31})
    assert path.read_text() == "step,a\n10,10\n30,30\n20,21\n30,31\n"
    assert [row["a"] for row in rows.rows()] == [10, 21, 31]
    rows.settle()
    assert path.read_text() == "step,a\n10,10\n20,21\n30,31\n"
    rows.append({"step": 40, "a": 40})
    assert [row["a"] for row in table(path).rows()] == [10, 21, 31, 40]


def test_a_table_that_is_only_opened_leaves_its_file_alone(path):
    path.parent.mkdir()
    path.write_text("step,a\n2,0.5\n1,0.25\n1,")
    rows = table(path)
    rows.settle()
    assert [row["a"] for row in rows.rows()] == [0.25, 0.5]
    assert path.read_text() == "step,a\n2,0.5\n1,0.25\n1,"


def test_rows_that_are_in_order_are_not_written_again(path):
    rows = table(path)
    rows.settle()
    assert not path.exists()
    for step in (1, 2, 2, 3):
        rows.append({"step": step, "a": step})
        before = path.stat().st_ino
        rows.settle()
        assert path.stat().st_ino == before


def test_rows_without_a_key_stay_where_they_are(path):
    rows = table(path)
    for row in ({"a": 1}, {"step": 2, "a": 2}, {"a": 3}, {"step": 2, "a": 4}, {"step": 1, "a": 5}):
        rows.append(row)
    rows.settle()
    assert path.read_text() == "step,a\n,1\n1,5\n2,4\n,3\n"


def test_values_read_back_bit_for_bit(path):
    values = [0.1, 1e-300, float("inf"), 1e16, -0.0, 3.0, 7, np.float32(0.1), "text, with comma"]
    table(path).append({"step": 1} | {f"v/{i}": value for i, value in enumerate(values)})
    found = list(table(path).rows()[0].values())[1:]
    assert found == values
    assert [type(value) for value in found[4:8]] == [float, float, int, float]


def test_nan_and_empty_values(path):
    table(path).append({"step": 1, "a": float("nan"), "b": None, "c": np.eye(2), "d": ""})
    (row,) = table(path).rows()
    assert row.keys() == {"step", "a"}
    assert np.isnan(row["a"])


def test_another_object_goes_on_with_the_file(path):
    table(path).append({"step": 1, "a": 0.5})
    again = table(path)
    again.append({"step": 1, "b": 1.5})
    again.append({"step": 2, "a": 0.25})
    assert path.read_text() == "step,a,b\n1,0.5,1.5\n2,0.25,\n"


@pytest.mark.parametrize("torn", ["2,0.2", "2", "2,0.25,7"])
def test_a_last_line_that_was_cut_off_is_dropped(path, torn):
    table(path).append({"step": 1, "a": 0.5})
    path.write_text(path.read_text() + torn)
    assert table(path).rows() == [{"step": 1, "a": 0.5}]
    table(path).append({"step": 2, "a": 0.25})
    assert path.read_text() == "step,a\n1,0.5\n2,0.25\n"


@pytest.mark.parametrize("content", ["", "st", "step"])
def test_a_header_that_was_cut_off_is_written_again(path, content):
    path.parent.mkdir()
    path.write_text(content)
    table(path).append({"step": 1, "a": 0.5})
    assert path.read_text() == "step,a\n1,0.5\n"


def test_a_file_that_was_removed_or_changed_meanwhile(path):
    rows = table(path)
    rows.append({"step": 1, "a": 0.5})
    path.write_text("step,a\n1,0.5\n2,9.0\n")
    rows.append({"step": 3, "a": 0.25})
    assert [row["a"] for row in rows.rows()] == [0.5, 9.0, 0.25]
    path.unlink()
    rows.append({"step": 4, "a": 0.125})
    assert path.read_text() == "step,a\n4,0.125\n"


def test_another_kind_of_file_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("name,value\na,1\n")
    with pytest.raises(RunDirectoryError, match=r"first column is \['name'\]; expected.*'step'"):
        table(path).append({"step": 1})
    assert path.read_text() == "name,value\na,1\n"


def test_rows_after_a_key_are_dropped(path):
    rows = table(path)
    for step in (1, 2, 3):
        rows.append({"step": step, "a": step})
    rows.drop_after(2)
    rows.append({"step": 3, "a": 30})
    assert [row["a"] for row in rows.rows()] == [1, 2, 30]
    rows.drop_after(0)
    assert not path.exists()
    rows.append({"step": 1, "b": 1})
    assert path.read_text() == "step,b\n1,1\n"


def test_rows_without_a_key_are_dropped_with_the_row_that_they_follow(path):
    rows = table(path)
    for row in ({"a": 0}, {"step": 1, "a": 1}, {"a": 2}, {"step": 3, "a": 3}, {"a": 4}):
        rows.append(row)
    rows.drop_after(1)
    assert path.read_text() == "step,a\n,0\n1,1\n,2\n"


def test_columns_of_dropped_rows_are_dropped_and_come_again_in_their_order(path):
    whole = table(path.parent / "whole.csv")
    rows = [{"step": 1, "a": 1}, {"step": 2, "b": 2}, {"step": 3, "c": 3, "a": 3}]
    for row in rows:
        whole.append(row)
    resumed = table(path)
    for row in ({"step": 1, "a": 1}, {"step": 3, "z": 0, "c": 0}, {"step": 4, "b": 0}):
        resumed.append(row)
    resumed.drop_after(1)
    for row in rows[1:]:
        resumed.append(row)
    assert path.read_bytes() == (path.parent / "whole.csv").read_bytes()


def test_a_failed_rewrite_leaves_the_old_file(path, monkeypatch):
    rows = table(path)
    rows.append({"step": 1, "a": 0.5})

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        rows.append({"step": 2, "b": 0.5})
    assert path.read_text() == "step,a\n1,0.5\n"
    assert [one.name for one in path.parent.iterdir()] == ["table.csv"]


WRITER = """
from boltax.loggers._table import Table
rows = Table({path!r}, key="step")
for step in range(100_000):
    rows.append({{"step": step, "a": 0.125, f"c{{step // 50}}": 1.0}})
    rows.append({{"step": step, "b": 0.5}})
"""


def test_a_kill_at_any_moment_leaves_whole_rows(path):
    process = subprocess.Popen([sys.executable, "-c", WRITER.format(path=str(path))])
    deadline = time.monotonic() + 60
    while len(table(path).rows()) < 120 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = table(path).rows()
    assert len(found) >= 120
    assert [row["step"] for row in found] == list(range(len(found)))
    assert all(row["a"] == 0.125 and row["b"] == 0.5 for row in found[:-1])
