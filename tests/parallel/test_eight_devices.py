"""The promises of one device on eight, on a mesh of two axes: one process, many questions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).with_name("eight_devices.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path_factory.mktemp("eight"),
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_on_eight_devices_that_goes_on_on_two_equals_that_of_one(found):
    assert found["apart"] < 1e-6


def test_each_example_of_an_evaluation_counts_once(found):
    one, eight = found["acc"]
    assert eight == one  # of 21 examples, in batches of 8, on 4 parts
    one, eight = found["loss"]
    assert eight == pytest.approx(one, abs=1e-6)


def test_rules_come_before_size(found):
    assert found["specs"] == {
        "BatchNorm_0/bias": "PartitionSpec('data',)",
        "BatchNorm_0/scale": "PartitionSpec('data',)",
        "Dense_0/bias": "PartitionSpec('data',)",
        "Dense_0/kernel": "PartitionSpec(None, 'model')",
        "Dense_1/bias": "PartitionSpec()",
        "Dense_1/kernel": "PartitionSpec('model', None)",
    }
    each, whole = found["bytes"]
    assert (each, whole) == (4 * (3 * 8 // 4 + 4 * 8 // 2 + 3 + 8 * 3 // 2), 4 * (24 + 32 + 3 + 24))


def test_64_members_on_eight_devices_equal_their_single_runs(found):
    members = found["members"]
    assert members["groups"] == [[n] for n in range(8)]  # eight members on each device
    assert members["each"] < 1e-6
    assert members["of all"] < 1e-6


def test_a_member_on_a_part_of_the_mesh_is_bit_for_bit_its_single_run_there(found):
    members = found["members"]
    assert members["places"] == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1]]
    assert (members["single"], members["metrics"]) == (0.0, True)
    assert members["pairs"] < 1e-6  # beside the runs on one device


def test_collectives_are_those_of_the_placement(found):
    data, fsdp = found["collectives"]["data"], found["collectives"]["fsdp"]
    assert data["all-reduce"] >= 1  # of gradients, statistics and metrics
    assert "all-gather" not in data  # each device has the whole of the parameters
    assert fsdp["all-gather"] >= 1  # parameters, before they are used
