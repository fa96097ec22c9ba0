"""How a run ended, in the words of each store: a table of loggers and statuses."""

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest

from boltax.loggers import CsvLogger, ForeignLogger, LoggerGroup, TensorBoardLogger
from boltax.loggers import _wandb as wandb_file
from boltax.loggers._mlflow import MlflowLogger
from boltax.loggers._wandb import WandbLogger

STATUSES = ("success", "failed", "interrupted")


class Client:
    """Stands for an `mlflow.MlflowClient` with a run of its own."""

    def __init__(self):
        self.ended = []

    def set_terminated(self, run_id, status):
        self.ended.append((run_id, status))


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("success", "FINISHED"),
        ("failed", "FAILED"),
        ("interrupted", "KILLED"),
        ("aborted", "KILLED"),
    ],
)
def test_mlflow(tmp_path, status, word):
    logger = MlflowLogger(tmp_path)
    logger._client, logger._run_id, logger._is_open = Client(), "1", True
    logger.finalize(status)
    logger.finalize(status)
    assert logger._client.ended == [("1", word)]


@pytest.mark.parametrize(
    ("status", "code"), [("success", 0), ("failed", 1), ("interrupted", 255), ("aborted", 1)]
)
def test_wandb(tmp_path, monkeypatch, status, code):
    codes = []

    def finish(exit_code):
        codes.append(exit_code)

    run = SimpleNamespace(id="a", finish=finish)
    logger = WandbLogger(tmp_path)
    monkeypatch.setattr(WandbLogger, "_own", {"a"})
    logger._run = run
    logger.finalize(status)
    logger.finalize(status)
    assert codes == [code]
    assert wandb_file._EXIT_CODES.keys() == set(STATUSES)


@pytest.mark.parametrize(
    ("status", "numbers"), [("success", [1]), ("failed", [2]), ("interrupted", [])]
)
def test_tensorboard(tmp_path, events, status, numbers):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize(status)
    values = [value for event in events(tmp_path) for value in event.summary.value]
    ends = [value for value in values if value.tag == "_hparams_/session_end_info"]
    contents = [end.metadata.plugin_data.content for end in ends]
    assert [HParamsPluginData.FromString(c).session_end_info.status for c in contents] == numbers


class Own:
    """A logger of the user's with Lightning's protocol."""

    def __init__(self):
        self.statuses = []

    def log_metrics(self, metrics, step):
        pass

    def finalize(self, status):
        self.statuses.append(status)


def lightning_class(name):
    module = ModuleType("lightning.pytorch.loggers.some")
    return type(name, (Own,), {"__module__": module.__name__})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Own, STATUSES),
        (lightning_class("CometLogger"), ("success", "failed", "failed")),
        (lightning_class("MLFlowLogger"), ("success", "failed", "KILLED")),
        (type("Mine", (lightning_class("MLFlowLogger"),), {}), ("success", "failed", "KILLED")),
    ],
)
def test_an_object_with_the_protocol_of_lightning(make, words):
    target = make()
    logger = LoggerGroup([ForeignLogger(target), CsvLogger("unused")])
    for status in STATUSES:
        logger.log_metrics({}, 1)
        logger.finalize(status)
    assert target.statuses == list(words)


def test_the_mlflow_logger_of_lightning_ends_as_killed(tmp_path):
    pytest.importorskip("lightning")
    if "mlflow" not in sys.modules:
        pytest.importorskip("mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow imports warns of its own future
        from lightning.pytorch.loggers import MLFlowLogger

        target = MLFlowLogger("boltax", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    client = Client()
    client.get_run = lambda run_id: run_id
    target._initialized, target._run_id, target._mlflow_client = True, "1", client
    ForeignLogger(target).finalize("interrupted")
    assert client.ended == [("1", "KILLED")]
