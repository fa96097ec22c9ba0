import subprocess
import sys

import numpy as np
import pytest

from boltax.loggers import WandbLogger, _wandb


@pytest.fixture
def no_login(wandb_offline, tmp_path, monkeypatch):
    """As on a machine on which nobody has logged in, and `WANDB_MODE` is not set."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(WandbLogger, "_notices", set())
    return wandb_offline


def test_without_a_login_the_run_is_offline_which_is_said_once(no_login, tmp_path, caplog, capfd):
    for version in range(2):
        logger = WandbLogger(tmp_path / f"version_{version}", project="p", run_name="n")
        logger.log_metrics({"a": 1.0}, 1)
        assert logger.experiment.offline
        assert (logger.experiment.project, logger.experiment.name) == ("p", "n")
        logger.finalize()
    said = [r.getMessage() for r in caplog.records if r.name == "boltax"]
    assert len(said) == 1
    assert f"wandb sync {tmp_path / 'version_0' / 'wandb' / 'offline-run-'}" in said[0]
    assert capfd.readouterr() == ("", "")


def test_a_login_in_a_netrc_file_or_the_environment_is_found(no_login, tmp_path, monkeypatch):
    assert not _wandb._has_login(no_login)
    host = no_login.setup().settings.base_url.removeprefix("https://")
    (tmp_path / "netrc").write_text("machine other.example login user password x\n")
    assert not _wandb._has_login(no_login)
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'0' * 40}\n")
    assert _wandb._has_login(no_login)
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert _wandb._has_login(no_login)


def test_an_explicit_mode_is_kept_and_nothing_is_said(wandb_offline, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize()
    assert not [r for r in caplog.records if r.name == "boltax"]
    assert not list(tmp_path.rglob("*.wandb"))


def test_the_users_own_run_is_used_and_left_open(wandb_offline, tmp_path):
    mine = wandb_offline.init(dir=tmp_path, project="mine")
    logger = WandbLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, 1)
    assert logger.experiment is mine
    logger.finalize()
    mine.log({"b": 2.0})
    assert wandb_offline.run is mine
    mine.finish()


def test_two_trainers_at_once_have_runs_of_their_own(wandb_offline, tmp_path, wandb_records):
    first, second = WandbLogger(tmp_path / "first"), WandbLogger(tmp_path / "second")
    first.log_metrics({"a": 1.0}, 1)
    second.log_metrics({"a": 2.0}, 1)
    assert first.experiment.id != second.experiment.id
    assert wandb_offline.run is first.experiment
    first.finalize()
    second.log_metrics({"a": 3.0}, 2)
    second.finalize()
    wandb_offline.teardown()
    assert values(wandb_records(tmp_path / "first")) == ["1"]
    assert values(wandb_records(tmp_path / "second")) == ["2", "3"]


def test_a_run_that_goes_on_keeps_its_id(wandb_offline, tmp_path):
    logger = WandbLogger(tmp_path)
    before = logger.experiment.id
    logger.finalize()
    logger.log_metrics({"a": 1.0}, 1)
    assert logger.experiment.id == before
    logger.finalize()


def test_metrics_are_drawn_over_the_step_which_stays_where_none_is_given(
    wandb_offline, tmp_path, wandb_records
):
    logger = WandbLogger(tmp_path)
    logger.log_metrics({"a": np.float32(1.0)}, 5)
    logger.log_metrics({"a": 2.0})
    logger.finalize()
    wandb_offline.teardown()
    records = wandb_records(tmp_path)
    assert ("*", "step") in {(r.metric.glob_name, r.metric.step_metric) for r in records}
    assert values(records) == ["1", "2"]
    assert values(records, "step") == ["5", "5"]


def test_no_service_outlives_a_script(wandb_offline, tmp_path):
    code = f"""
from boltax.loggers import WandbLogger
logger = WandbLogger({str(tmp_path)!r})
logger.log_metrics({{"a": 1.0}}, 1)
logger.finalize()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert len(list(tmp_path.rglob("*.wandb"))) == 1


def values(records, name="a"):
    items = [item for record in records for item in record.history.item]
    return [item.value_json for item in items if list(item.nested_key) == [name]]
