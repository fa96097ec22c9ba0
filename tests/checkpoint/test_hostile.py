"""Nothing in a run's folder can run code, or have anything read that is outside of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import boltax
from boltax.checkpoint._rundir import RunDirectory
from checkpoint.hostile import CANARY, HOSTILE, SECRET, good_run

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What loading did, in another process that is watched."""
    base = tmp_path_factory.mktemp("hostile")
    good_run(base / "good")
    names = {"good": str(base / "good")}
    for number, (name, (build, _)) in enumerate(HOSTILE.items()):
        run = RunDirectory(shutil.copytree(base / "good", base / f"run_{number}"))
        outside = base / "outside" / str(number)
        outside.mkdir(parents=True)
        (outside / "secret.json").write_text(json.dumps({SECRET: SECRET}))
        build(run, outside)
        names[name] = str(run.path)
    path = [str(Path(boltax.__file__).parents[1]), str(TESTS)]
    done = subprocess.run(
        [sys.executable, "-m", "checkpoint.hostile", str(base / "outside"), *names.values()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert not (base / CANARY).exists()
    assert SECRET not in done.stdout + done.stderr
    loaded = json.loads(done.stdout)
    return {name: loaded[folder] for name, folder in names.items()}


def test_the_run_that_all_are_made_of_is_good(results):
    assert results["good"] == {"errors": [], "foreign": [], "seen": [], "called": []}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_is_refused_and_does_no_harm(results, name):
    result, answer = results[name], HOSTILE[name][1]
    assert result["seen"] == result["called"] == []
    assert result["foreign"] == []
    if answer:
        assert any(re.search(answer, error) for error in result["errors"]), result["errors"]
    else:
        assert result["errors"] == []
