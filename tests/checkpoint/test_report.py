import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._report import compare_checkpoints, describe_checkpoint, list_checkpoints
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import CheckpointError, RunDirectoryError


def variables(value, size=4):
    weights = {"kernel": jnp.full((3, size), value), "bias": jnp.zeros(size)}
    return {"params": {"Dense_0": weights}, "batch_stats": {"mean": jnp.ones(2, jnp.bfloat16)}}


@pytest.fixture
def run(tmp_path):
    """A run with two of the best models, one saved by hand and a resume checkpoint."""
    run = RunDirectory(tmp_path / "run")
    best = BestCheckpoints(run.best, keep=2)
    best.save(100, variables(1.0), {"val/loss": 0.5, "val/acc": float("nan")})
    best.save(300, variables(3.0), {"val/loss": 0.25, "val/per_class": np.ones(3)})
    BestCheckpoints(run.saved).save(200, variables(2.0, size=5), {})
    state = {**variables(3.5), "collections": None, "rng": jax.random.key(0)}
    progress = {"epoch": 4, "record": {"train/loss": float("inf")}}
    ResumeCheckpoints(run.resume).save(400, {"state": state, "epoch": None}, progress)
    return run.path


def rows(report):
    return [line.split() for line in report.text.splitlines()]


def test_every_checkpoint_is_listed_with_its_metrics(run):
    report = list_checkpoints(run)
    found = [(row[0], row[1], row[2], row[-1]) for row in rows(report) if len(row) == 8]
    assert found == [
        ("best", "100", "-", "good"),
        ("best", "300", "-", "good"),
        ("saved", "200", "-", "good"),
        ("resume", "400", "4", "good"),
    ]
    for line in ("val/loss 0.5   val/acc nan", "val/loss 0.25", "train/loss inf"):
        assert re.search(rf"^ +{line}$", report.text, re.MULTILINE)
    assert re.search(r"^4 checkpoints, [\d.]+ kB, all good$", report.text, re.MULTILINE)
    assert not report.is_damaged


def test_damage_is_listed_by_file(run):
    (run / "checkpoints/best/300/structure.json").unlink()
    (run / "checkpoints/resume/400/progress.json").write_text("{")
    report = list_checkpoints(run)
    assert report.is_damaged
    assert "structure.json is missing" in report.text
    assert re.search(r"progress.json has 1 bytes instead of \d+", report.text)
    assert report.text.endswith("2 damaged")
    unverified = list_checkpoints(run, verify=False)
    assert not unverified.is_damaged
    assert unverified.text.endswith("not verified")


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_the_terminal(run, width):
    metrics = {f"val/metric_with_a_name_{i}": i / 7 for i in range(30)}
    BestCheckpoints(run / "checkpoints/best").save(500, variables(1.0), metrics)
    text = list_checkpoints(run, width=width).text.removeprefix(str(run))
    assert max(map(len, text.splitlines())) <= width
    assert text.count("val/metric_with_a_name") == 30


def test_a_run_without_checkpoints_says_so(tmp_path):
    assert list_checkpoints(tmp_path).text.endswith("no checkpoints")
    with pytest.raises(RunDirectoryError, match="cannot read it"):
        list_checkpoints(tmp_path / "none")


def test_one_is_described_array_by_array(run):
    report = describe_checkpoint(run / "checkpoints/resume/400")
    assert ["state/params/Dense_0/kernel", "float32[3,", "4]", "48", "B"] in rows(report)
    assert ["state/batch_stats/mean", "bfloat16[2]", "4", "B"] in rows(report)
    assert ["state/rng", "key<threefry2x32>[]", "8", "B"] in rows(report)
    assert report.text.endswith("4 arrays, 20 numbers, 76 B")
    assert "every file is as it was saved" in report.text
    (run / "checkpoints/resume/400/manifest.json").unlink()
    report = describe_checkpoint(run / "checkpoints/resume/400")
    assert "damaged: manifest.json is missing" in report.text
    assert report.is_damaged


def test_a_checkpoint_that_is_not_there_says_which_are(run):
    with pytest.raises(CheckpointError, match=r"Steps in .*best: 100, 300\."):
        describe_checkpoint(run / "checkpoints/best/7")


def test_values_are_compared(run):
    report = compare_checkpoints(run / "checkpoints/best/100", run / "checkpoints/best/300")
    kernel = ["params/Dense_0/kernel", "float32[3,", "4]", "100", "%", "2"]
    assert [row for row in rows(report) if row and row[0].startswith("params/")] == [kernel]
    assert report.text.endswith("of 3 arrays of the same form 2 are equal and 1 differ")


def test_structures_are_compared(run):
    report = compare_checkpoints(run, run / "checkpoints/saved/200")
    shape = ["shape", "params/Dense_0/bias", "float32[4]", "float32[5]"]
    assert shape in rows(report)
    assert "2 differences in structure; of 1 arrays" in report.text


def test_two_of_different_kinds_are_compared_by_their_variables(run):
    report = compare_checkpoints(run, run / "checkpoints/resume/400")
    assert "0 differences in structure; of 3 arrays" in report.text
    assert ["params/Dense_0/kernel", "float32[3,", "4]", "100", "%", "0.5"] in rows(report)


@pytest.mark.parametrize(
    ("one", "other", "share", "largest"),
    [
        (np.array([1.0, np.nan]), np.array([2.0, np.nan]), "50 %", "1"),
        (np.array([1.0, 2.0]), np.array([np.nan, 2.5]), "100 %", "0.5"),
        (np.array([np.nan]), np.array([1.0]), "100 %", "nan"),
        (np.array([0.0]), np.array([-0.0]), "bits only", "0"),
        (np.array([True, False]), np.array([True, True]), "50 %", "1"),
        (np.array([1 + 1j]), np.array([1 - 1j]), "100 %", "2"),
        (np.uint8([0, 0, 0]), np.uint8([0, 255, 0]), "33.3 %", "255"),
    ],
)
def test_differences_of_every_kind_are_measured(tmp_path, one, other, share, largest):
    for folder, array in (("a", one), ("b", other)):
        BestCheckpoints(RunDirectory(tmp_path / folder).best).save(1, {"params": array}, {})
    report = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    line = next(line for line in report.text.splitlines() if line.startswith("params"))
    assert re.search(rf"\] +{re.escape(share)} +{re.escape(largest)}$", line)


def test_what_a_terminal_would_obey_is_not_shown(run):
    BestCheckpoints(run / "checkpoints/best").save(1, variables(1.0), {"\x1b[2Jevil": 1.0})
    report = list_checkpoints(run)
    assert "\x1b" not in report.text
    assert "?[2Jevil 1" in report.text


def test_listing_starts_no_backend(run):
    code = (
        "from boltax.checkpoint._report import list_checkpoints\n"
        "from jax._src import xla_bridge\n"
        f"print(list_checkpoints({str(run)!r}).is_damaged, xla_bridge.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
