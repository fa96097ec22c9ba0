"""The campaigns of `benchmarks/reliability.py` in their short versions, by the same code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import reliability

ROOT = Path(__file__).parents[1]
QUICK = ("retention", "stall")
"""Those that take less than ten seconds."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in reliability.CAMPAIGNS],
)
def test_the_short_campaign_passes(name, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "reliability.py", name, "--quick"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "SKIPPED" in done.stdout:
        pytest.skip(done.stdout)
