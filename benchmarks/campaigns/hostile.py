"""Run folders that somebody made to do harm are loaded in a process that is watched.

The folders, and what loads them, are those of the test suite.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from campaigns.score import Score

ROOT = Path(__file__).parents[2]


def load_all() -> Score:
    """Loads every folder of the corpus."""
    sys.path.insert(0, str(ROOT / "tests"))
    from checkpoint.hostile import CANARY, HOSTILE, SECRET

    score = Score("hostile run folders", len(HOSTILE), "no code run, nothing outside read")
    with tempfile.TemporaryDirectory(prefix="boltax-hostile-") as work:
        base = Path(work)
        results, output = _loaded(base)
        if (base / CANARY).exists():
            score.failures.append("a folder ran code")
        if SECRET in output:
            score.failures.append("a secret from outside was shown")
    ran = read = refused = 0
    for name, result in results.items():
        answer = HOSTILE[name][1]
        ran += any(not event.startswith(("open", "os.")) for event in result["seen"])
        read += any(event.startswith(("open", "os.")) for event in result["seen"])
        is_clear = not result["foreign"] and (
            any(re.search(answer, error) for error in result["errors"])
            if answer
            else not result["errors"]
        )
        refused += bool(answer) and is_clear
        if result["seen"] or result["called"] or not is_clear:
            score.failures.append(f"{name}: {result}"[:1000])
    answers = sum(bool(answer) for _, answer in HOSTILE.values())
    score.result = f"code run {ran}, files outside read {read}"
    score.details = [f"clear errors: {refused} of {answers}; the others are loaded unharmed"]
    return score


def _loaded(base: Path) -> tuple[dict[str, Any], str]:
    """What loading each folder did, by the folder's name, and all output."""
    from checkpoint.hostile import HOSTILE, SECRET, good_run

    names = {"": str(good_run(base / "good").path)}
    for number, (name, (build, _)) in enumerate(HOSTILE.items()):
        run = good_run(base / f"run_{number}")
        outside = base / "outside" / str(number)
        outside.mkdir(parents=True)
        (outside / "secret.json").write_text(json.dumps({SECRET: SECRET}))
        build(run, outside)
        names[name] = str(run.path)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "checkpoint.hostile", str(base / "outside"), *names.values()],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process that loads them ended with:\n{done.stderr[-3000:]}")
    loaded = json.loads(done.stdout)
    return {name: loaded[folder] for name, folder in names.items() if name}, done.stdout
