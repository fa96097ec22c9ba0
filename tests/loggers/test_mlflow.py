"""What the contract table does not show of MLflow. One test: each store costs many seconds."""

import shutil
from pathlib import Path

import pytest

from boltax.loggers import MlflowLogger


@pytest.mark.slow
def test_a_store_that_the_environment_names(mlflow_store, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    shutil.copy(mlflow_store, tmp_path / "shared.db")
    uri = f"sqlite:///{tmp_path}/shared.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    client = MlflowClient(tracking_uri=uri)
    place = (tmp_path / "artifacts").as_uri()
    known = client.create_experiment("mine", artifact_location=place)
    loggers = {
        "mine": MlflowLogger(tmp_path / "a", project="mine", run_name="first"),
        "from the environment": MlflowLogger(tmp_path / "b"),
    }
    for logger in loggers.values():
        logger.log_metrics({"loss [mean], %": 0.5}, step=3)
    loggers["mine"].log_hyperparams({f"p{index}": "x" * 7000 for index in range(120)})
    loggers["mine"].log_text("notes/day", "text")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mlflow_run_id.txt"]

    run = client.get_run(loggers["mine"].run_id)
    assert (run.info.experiment_id, run.info.run_name, run.info.status) == (
        known,
        "first",
        "RUNNING",
    )
    assert run.data.metrics == {"loss _mean__ _": 0.5}
    assert len(run.data.params) == 120
    assert Path(tmp_path, "artifacts", run.info.run_id, "artifacts/text/notes/day.txt").exists()
    names = {one.experiment_id: one.name for one in client.search_experiments()}
    other = client.get_run(loggers["from the environment"].run_id)
    assert names[other.info.experiment_id] == "from the environment"

    for status, expected in (("success", "FINISHED"), ("failed", "FAILED"), ("stopped", "KILLED")):
        loggers["mine"].log_metrics({"a": 1.0})
        assert client.get_run(loggers["mine"].run_id).info.status == "RUNNING"
        loggers["mine"].finalize(status)
        assert client.get_run(run.info.run_id).info.status == expected
