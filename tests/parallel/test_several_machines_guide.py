"""What the guide "Several machines" shows beside its program: the job script of SLURM, Ray's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "several_machines.md"
SRUN = """#!/bin/sh
# two tasks, as srun would start them; its status is the largest of theirs
[ "$1" = --kill-on-bad-exit=1 ] && shift
for task in 0 1; do SLURM_PROCID=$task "$@" & pids="$pids $!"; done
worst=0
for pid in $pids; do wait $pid || { status=$?; [ $status -gt $worst ] && worst=$status; }; done
exit $worst
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.M | re.S)


@pytest.mark.parametrize(
    "end, queued", [("sys.exit(138)", True), ("sys.exit(143)", True), ("sys.exit(1)", False)]
)
def test_a_job_of_slurm_that_was_stopped_queues_itself_again(end, queued, tmp_path):
    programs = {
        "srun": SRUN,
        "scontrol": '#!/bin/sh\necho "$@" > requeued\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    second = f"import os, sys\nif os.environ['SLURM_PROCID'] == '1': {end}\n"
    (tmp_path / "train.py").write_text(second)
    (script,) = blocks("bash")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "77"},
        check=False,
    )
    assert done.returncode == int(re.findall(r"\d+", end)[0])
    asked = tmp_path / "requeued"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 77\n" if queued else "")


def test_the_manifest_sets_what_initialize_reads():
    service, job = yaml.safe_load_all(blocks("yaml")[0])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = {one["name"]: one for one in container["env"]}
    assert set(names) == {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    number = int(names["WORLD_SIZE"]["value"])
    assert number == job["spec"]["completions"] == job["spec"]["parallelism"]
    name = service["metadata"]["name"]
    assert names["MASTER_ADDR"]["value"] == f"{job['metadata']['name']}-0.{name}"


def test_ray_trains_goes_on_after_a_worker_was_killed(tmp_path):
    pytest.importorskip("ray.train.v2.jax")
    kill = """
    class Die(bx.callbacks.Callback):
        def on_training_epoch_end(self, view):
            import jax
            if view.epoch == 3 and jax.process_index() == 1 and not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), 9)

"""
    (script,) = blocks("py")
    script = script.replace("    images, labels = load", f"{kill}    images, labels = load")
    script = script.replace(
        '        parallel="data",', '        parallel="data", callbacks=[Die()],'
    )
    script = script.replace('"died"', repr(str(tmp_path / "died")))
    (tmp_path / "train.py").write_text(script)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "died").exists()
    rows = (tmp_path / "runs/digits/history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert "Goes on from step" in done.stdout + done.stderr
