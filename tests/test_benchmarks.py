"""The speed suite: sides run beside each other, and only those that train alike are compared."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import speed
from suite import first_step, long_run, report
from suite.driver import Timed, time_sides
from suite.tasks import TASKS, make_data

ROOT = Path(__file__).parents[1]
WRONG = """
import numpy as np
from suite import side_hand
from suite.tasks import make_data

def run(*arguments):
    side_hand.make_data = lambda task: tuple((x, np.roll(y, 1)) for x, y in make_data(task))
    side_hand.donated(*arguments)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What one short run prints, with a side that learns nothing and one that is not there."""
    folder = tmp_path_factory.mktemp("speed")
    (folder / "wrong.py").write_text(WRONG)
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "benchmarks" / "speed.py"),
            *("--sides", "hand,boltax,wrong:run,absent:run"),
            *("--tasks", "T1s", "--steps", "150", "--rounds", "1"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(printed, side):
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {side}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_boltax_is_compared_with_the_loop_written_by_hand(printed):
    steps_per_second, ratio = cells(printed, "boltax")[1:3]
    hand = cells(printed, "**hand**")
    assert hand[2] == "1.00"
    assert float(ratio) > 0
    assert float(ratio) == pytest.approx(float(steps_per_second) / float(hand[1]), rel=0.1, abs=0.1)


def test_a_side_that_trains_otherwise_gets_no_ratio(printed):
    found = cells(printed, "wrong:run")
    assert found[2].startswith("refused: loss ")
    assert found[4].startswith("refused: eval_loss ")


def test_a_side_that_is_not_installed_says_so_and_the_rest_goes_on(printed):
    assert cells(printed, "absent:run")[1] == "not installed: absent"


def test_a_side_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def run(*_): raise ValueError('no such layer')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (result,) = time_sides(["broken:run"], "T1s", rounds=1, steps=2, say=lambda _: None)
    assert result.missing == "failed: ValueError: no such layer"


def measured(side, loss, *, steps=10, seconds=1.0):
    one = {"train_seconds": seconds, "eval_seconds": 1.0, "whole_seconds": 2.0, "steps": steps}
    one |= {"loss": loss, "eval_loss": loss, "peak_mb": 300.0, "other_cores": 0.0}
    return Timed(side, [one], import_seconds=1.0, first={"since_import": 2.0})


def test_a_side_may_have_an_interpreter_of_its_own(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho from its own environment >&2\n")
    python.chmod(0o755)
    pythons = {"kauldron": str(python)}
    (result,) = time_sides(["kauldron"], "T1s", rounds=1, pythons=pythons, say=lambda _: None)
    assert result.missing == "failed: from its own environment"


@pytest.mark.parametrize("loss", [0.0, 0.79, 1.21, math.nan, math.inf])
def test_losses_outside_the_band_are_refused(loss):
    found = report.ratio(measured("other", loss), measured("hand", 1.0), "train_seconds", "loss")
    assert found.startswith("refused")


@pytest.mark.parametrize("loss", [0.81, 1.0, 1.19])
def test_losses_inside_the_band_are_compared(loss):
    side = measured("other", loss, seconds=0.5)
    assert report.ratio(side, measured("hand", 1.0), "train_seconds", "loss") == "2.00"


def test_another_number_of_steps_is_refused():
    side = measured("other", 1.0, steps=9)
    found = report.ratio(side, measured("hand", 1.0), "train_seconds", "loss")
    assert found == "refused: 9 steps, hand 10"


def test_without_the_reference_there_is_no_ratio():
    table = report.table(TASKS["T1"], [measured("boltax", 1.0)])
    assert cells(table, "boltax")[2] == "no reference"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_data_are_whole_batches_and_the_same_each_time(task):
    task = task.shortened(3)
    (inputs, labels), (eval_inputs, _) = make_data(task)
    again = make_data(task)[0]
    assert inputs.shape == (3 * task.batch, *task.shape)
    assert len(eval_inputs) == task.eval_batches * task.batch
    assert (inputs == again[0]).all()
    assert (labels == again[1]).all()


@pytest.mark.slow
def test_first_and_second_start_are_timed():
    table = first_step.table("T1s", ["hand"], repeats=1, say=lambda _: None)
    first, second = cells(table, first_step.HAND_CACHED)[1:3]
    assert float(second) < float(first)


@pytest.mark.slow
def test_a_long_run_is_timed_by_the_thousand():
    table = long_run.table(3000)
    assert "Last thousand against the second: time" in table
    assert float(cells(table, "3,000")[1]) > 0


def test_written_tables_come_with_the_machine_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--rounds", "3"])
    speed.write("speed-T1-memory", ["## T1", "| side |"])
    (path,) = tmp_path.glob("*-speed-T1-memory-*.md")
    text = path.read_text()
    assert "`python benchmarks/speed.py --rounds 3`" in text
    assert f"{os.cpu_count()} cores" in text
    assert text.endswith("## T1\n\n| side |\n")
