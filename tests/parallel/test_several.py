"""Two processes with two devices each, started and joined as on two machines, and one with four."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("several.py")
SECONDS = 240


class Ended(NamedTuple):
    """How a process has ended, what it has printed last, and all that it said."""

    code: int
    found: Any
    text: str


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def of_torchrun(index: int, count: int, port: int) -> dict[str, str]:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return dict(zip(names, (str(index), str(count), "127.0.0.1", str(port)), strict=True))


def of_srun(index: int, count: int, port: int) -> dict[str, str]:
    """What ``srun`` sets, and JAX reads; the port of the first process follows from the job."""
    return {
        "SLURM_JOB_ID": str(port),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        "JAX_LOCAL_DEVICE_IDS": "0,1",
    }


def run(scenario: str, folder: Path, *, count: int = 2, launcher: Any = of_torchrun) -> list[Ended]:
    port = free_port()
    flags = f"--xla_force_host_platform_device_count={4 // count}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), scenario, str(folder)],
            env={**os.environ, "XLA_FLAGS": flags, **launcher(index, count, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    try:
        texts = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    ended: list[Ended] = []
    for process, (out, err) in zip(processes, texts, strict=True):
        lines = [line for line in out.splitlines() if line.startswith("{")]
        ended.append(Ended(process.returncode, json.loads(lines[-1]) if lines else None, err))
    return ended


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in two processes, and the same in one."""
    folder = tmp_path_factory.mktemp("trained")
    two, (one,) = run("train", folder / "two"), run("train", folder / "one", count=1)
    assert [each.code for each in (*two, one)] == [0, 0, 0], two[0].text + two[1].text + one.text
    return two[0].found, two[1].found, one.found, folder


def test_all_processes_see_the_same_numbers(trained):
    first, second, _, _ = trained
    assert first == second


def test_two_processes_give_the_numbers_of_one(trained):
    two, _, one, _ = trained
    assert two["specs"] == one["specs"]
    assert "data" in two["specs"][1]
    for name in ("sums", "predicted"):
        np.testing.assert_allclose(two[name], one[name], atol=2e-6)
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert two["loaded"] == pytest.approx(one["loaded"], abs=1e-6)


def test_one_process_writes_the_files(trained):
    _, _, _, folder = trained
    names = {path.name for path in (folder / "two").iterdir()}
    assert names == {path.name for path in (folder / "one").iterdir()}
    rows = (folder / "two" / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]


def test_each_example_counts_once_however_the_loader_is_divided(trained):
    two, _, one, _ = trained
    assert two["whole"] == two["arrays"]
    assert two["divided"] == pytest.approx(two["arrays"], abs=1e-6)
    assert two["arrays"] == pytest.approx(one["arrays"], abs=1e-6)


def test_predictions_of_a_divided_loader_have_the_rows_of_the_first_process_first(trained):
    two, _, _, _ = trained
    # batches of 4 and 4, 4 and 4, 4 and none, 1 and none
    order = [*range(4), *range(13, 17), *range(4, 8), *range(17, 21), *range(8, 13)]
    expected = [two["straight"][row] for row in order]
    np.testing.assert_allclose(two["order"], expected, atol=2e-6)


def test_loaders_that_read_in_other_orders_are_told(trained):
    first, second, _, _ = trained
    assert "batch 1 of epoch 1 is not the same in all processes" in first["different"]
    assert "boltax.data.Divided(" in second["different"]


@pytest.mark.timeout(900)  # six starts of two processes
def test_a_run_survives_whatever_ends_one_of_its_processes(tmp_path):
    (whole, _), folder = run("none@0", tmp_path / "whole"), tmp_path / "run"

    failed = run("fail@5", folder)
    assert all(failed[index].code != 0 for index in (0, 1))
    assert "ValueError: a file is missing on this machine" in failed[1].text
    assert "process 0 leaves. Received the end of process 1, which failed: Val" in failed[0].text
    assert json.loads((folder / "end.json").read_text())["how"] == "failed"

    killed = run("kill@8", folder)
    assert (killed[1].code, killed[0].code != 0) == (-9, True)

    stopped = run("term@10", folder, launcher=of_srun)
    assert [each.code for each in stopped] == [143, 143], stopped[0].text + stopped[1].text
    assert json.loads((folder / "end.json").read_text())["how"] == "interrupted"
    steps = {int(path.name) for path in (folder / "checkpoints/resume").glob("[0-9]*")}
    assert 10 in steps

    alike = run("both@11", folder)  # then all of them save what they have
    assert [each.code for each in alike] == [1, 1], alike[0].text
    assert all("ValueError: the same in all" in each.text for each in alike)
    assert (folder / "checkpoints/resume/11").exists()

    ended = run("none@0", folder)
    assert [each.code for each in ended] == [0, 0], ended[0].text
    assert ended[0].found == ended[1].found == whole.found
    assert not re.search("Traceback", ended[0].text + ended[1].text)
