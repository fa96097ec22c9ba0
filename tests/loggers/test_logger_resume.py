"""A run that was killed and goes on: its loggers hold what those of an uninterrupted run hold."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boltax.loggers import (
    CsvLogger,
    ForeignLogger,
    LoggerGroup,
    MlflowLogger,
    NoLogger,
    TensorBoardLogger,
    WandbLogger,
)
from boltax.loggers import _wandb as wandb_module

UNTIL = [
    (380, {"train/step/loss": 0.5}),
    (400, {"train/step/loss": 0.25}),
]  # on disk before the checkpoint of step 400
AT = [(400, {"epoch": 4, "train/loss": 0.375}), (400, {"val/acc": 0.75})]  # after it
LOST = [(420, {"train/step/loss": 9.0, "train/step/other": 9.0}), (437, {"train/step/loss": 9.0})]
AFTER = [
    (420, {"train/step/loss": 0.125, "lr": 0.5}),
    (500, {"train/step/loss": 0.0625, "val/acc": 1.0}),
]
KILLED = {"before the epoch's record": 0, "in between": 1, "after it": 2}


def write(logger, records):
    for step, metrics in records:
        logger.log_metrics(metrics, step)


def scalars_of_csv(folder: Path) -> Any:
    return (folder / "metrics.csv").read_bytes()


def scalars_of_tensorboard(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if events.Scalars(tag)
    }


def scalars_of_mlflow(folder: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def make_mlflow(folder: Path, request: pytest.FixtureRequest) -> MlflowLogger:
    if not (folder / "mlflow.db").exists():
        folder.mkdir(exist_ok=True)
        shutil.copy(request.getfixturevalue("mlflow_store"), folder / "mlflow.db")
    return MlflowLogger(folder)


ROWS: dict[str, tuple[Callable[..., Any], Callable[[Path], Any]]] = {
    "csv": (lambda folder, _: CsvLogger(folder), scalars_of_csv),
    "tensorboard": (lambda folder, _: TensorBoardLogger(folder), scalars_of_tensorboard),
    "group": (lambda folder, _: LoggerGroup([NoLogger(), CsvLogger(folder)]), scalars_of_csv),
}
SLOW_ROWS = ROWS | {"mlflow": (make_mlflow, scalars_of_mlflow)}
PARAMETERS = [
    pytest.param(*row, id=name, marks=[pytest.mark.slow] if name == "mlflow" else [])
    for name, row in SLOW_ROWS.items()
]


@pytest.mark.parametrize("same_process", [False, True])
@pytest.mark.parametrize("killed", KILLED)
@pytest.mark.parametrize("make, read", PARAMETERS)
def test_it_holds_what_an_uninterrupted_run_holds(
    make: Callable[..., Any], read: Callable[[Path], Any], killed, same_process, tmp_path, request
):
    whole = make(tmp_path / "whole", request)
    write(whole, [*UNTIL, *AT, *AFTER])
    whole.finalize()
    logger = make(tmp_path / "resumed", request)
    written = AT[: KILLED[killed]]
    # MLflow takes nothing back, so there the lost records are those that come again
    lost = LOST if read is not scalars_of_mlflow else AFTER[:1]
    write(logger, [*UNTIL, *written, *(lost if written else [])])
    logger.flush()
    if not same_process:
        logger = make(tmp_path / "resumed", request)
    logger.resume(400)
    write(logger, [*AT, *AFTER])
    logger.finalize()
    assert read(tmp_path / "resumed") == read(tmp_path / "whole")


@pytest.mark.parametrize("make, read", ROWS.values(), ids=ROWS)
def test_a_second_training_from_the_start_takes_the_place_of_the_first(
    make, read, tmp_path, request
):
    whole = make(tmp_path / "whole", request)
    write(whole, [*UNTIL, *AFTER])
    whole.finalize()
    logger = make(tmp_path / "again", request)
    write(logger, [*AT, *LOST])
    logger.finalize()
    logger.resume(0)
    write(logger, [*UNTIL, *AFTER])
    logger.finalize()
    assert read(tmp_path / "again") == read(tmp_path / "whole")


@pytest.mark.parametrize("make, read", ROWS.values(), ids=ROWS)
def test_interrupted_several_times(make, read, tmp_path, request):
    whole = make(tmp_path / "whole", request)
    write(whole, [*UNTIL, *AT, *AFTER])
    whole.finalize()
    for step, records in ((0, [*UNTIL, *AT, *LOST]), (400, [*AT, *LOST]), (400, AT), (400, AT)):
        logger = make(tmp_path / "resumed", request)
        if step:
            logger.resume(step)
        write(logger, records)
        logger.flush()
    write(logger, AFTER)
    logger.finalize()
    assert read(tmp_path / "resumed") == read(tmp_path / "whole")


@pytest.mark.parametrize("name", ["CsvLogger", "TensorBoardLogger"])
def test_what_was_flushed_outlives_a_kill(name, tmp_path):
    code = f"""
import os, signal
from boltax.loggers import {name}
logger = {name}({str(tmp_path)!r})
for step in range(0, 440, 20):
    logger.log_metrics({{"a": step}}, step)
    if step == 400:
        logger.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    logger = {"CsvLogger": CsvLogger, "TensorBoardLogger": TensorBoardLogger}[name](tmp_path)
    logger.resume(400)
    logger.log_metrics({"a": 420}, 420)
    logger.finalize()
    expected = [(step, float(step)) for step in range(0, 440, 20)]
    if name == "CsvLogger":
        text = "".join(f"{step},{step}\n" for step, _ in expected)
        assert (tmp_path / "metrics.csv").read_text() == "step,a\n" + text
    else:
        assert scalars_of_tensorboard(tmp_path) == {"a": expected}


def test_files_of_later_steps_are_removed(tmp_path, image, figure):
    logger = CsvLogger(tmp_path)
    for step in (400, 437, 1_000_000):
        logger.log_image("val/picture", image, step)
        logger.log_figure("curve", figure, step)
        logger.log_histogram("weights", np.arange(3.0), step)
        logger.log_text("note", "text", step)
    logger.log_text("model_3", "text")
    logger.log_hyperparams({"lr": 0.1})
    logger.resume(400)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "images/val/picture_000400.png",
        "figures/curve_000400.png",
        "histograms/weights_000400.csv",
        "text/note_000400.txt",
        "text/model_3.txt",
        "hyperparameters.csv",
    }


def test_an_event_file_that_a_kill_cut_off(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    write(logger, [*UNTIL, *AT, *LOST])
    logger.finalize()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    logger = TensorBoardLogger(tmp_path)
    logger.resume(400)
    write(logger, [*AT, *AFTER])
    logger.finalize()
    assert scalars_of_tensorboard(tmp_path)["val/acc"] == [(400, 0.75), (500, 1.0)]


@pytest.mark.parametrize("make", [CsvLogger, TensorBoardLogger, WandbLogger, MlflowLogger])
def test_a_run_that_only_resumes_writes_nothing(make, tmp_path):
    make(tmp_path).resume(400)
    assert not list(tmp_path.iterdir())


def test_a_foreign_logger_is_left_alone():
    target = SimpleNamespace(log_metrics=lambda *_: None, resume=lambda _: pytest.fail("called"))
    ForeignLogger(target).resume(400)


class FakeWandb:
    """The part of the package that starts runs, for an online run without a network."""

    run = None
    Settings = SimpleNamespace

    def __init__(self, mode):
        self.mode = mode
        self.calls = []

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def init(self, **arguments):
        self.calls.append(arguments)
        name = arguments["id"] or f"run-{len(self.calls)}"
        ignored = dict.fromkeys(("define_metric", "finish", "log"), lambda *_, **__: None)
        return SimpleNamespace(id=name, dir="wandb/run/files", **ignored)


@pytest.fixture
def start_wandb(monkeypatch, tmp_path):
    """Starts loggers, each as in a process of its own."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def start(mode, resumed):
        fake = FakeWandb(mode)
        monkeypatch.setattr(wandb_module, "_wandb", lambda: fake)
        monkeypatch.setattr(WandbLogger, "_own", set())
        logger = WandbLogger(tmp_path)
        if resumed:
            logger.resume(400)
        logger.log_metrics({"a": 1.0}, 1)
        return logger, fake

    return start


def test_wandb_goes_on_in_the_run_of_the_folder_only_after_resume(start_wandb):
    started = [start_wandb("online", resumed)[1].calls[0] for resumed in (False, True, False)]
    assert [(call["id"], call["resume"]) for call in started] == [
        (None, None),
        ("run-1", "allow"),
        (None, None),
    ]


def test_wandb_in_the_same_process_opens_no_second_run(start_wandb):
    logger, fake = start_wandb("online", False)
    logger.resume(400)
    logger.log_metrics({"a": 1.0}, 401)
    assert len(fake.calls) == 1
    logger.finalize()
    logger.resume(400)
    logger.log_metrics({"a": 1.0}, 401)
    assert (fake.calls[1]["id"], fake.calls[1]["resume"]) == ("run-1", "allow")


def test_wandb_offline_makes_a_further_run_and_says_so(start_wandb, caplog):
    start_wandb("online", False)
    _, fake = start_wandb("offline", True)
    assert (fake.calls[0]["id"], fake.calls[0]["resume"]) == (None, None)
    assert "only online: this is a further one, run-1" in caplog.text


@pytest.mark.slow
def test_mlflow_starts_a_new_run_where_the_store_does_not_know_the_old_one(
    tmp_path, request, caplog
):
    (tmp_path / "mlflow_run_id.txt").write_text("0" * 32)
    logger = make_mlflow(tmp_path, request)
    logger.resume(400)
    logger.log_metrics({"a": 1.0}, 401)
    assert "MLflow has no run 000" in caplog.text
    assert scalars_of_mlflow(tmp_path) == {"a": [(401, 1.0)]}


def test_wandb_itself_offline(wandb_offline, tmp_path, caplog):
    first, second = WandbLogger(tmp_path), WandbLogger(tmp_path)
    first.log_metrics({"a": 1.0}, 1)
    before = first.experiment.id
    first.resume(1)
    first.log_metrics({"a": 1.0}, 2)
    assert first.experiment.id == before
    first.finalize()
    second.resume(1)
    second.log_metrics({"a": 1.0}, 2)
    assert second.experiment.id != before
    assert f"this is a further one, {second.experiment.id}" in caplog.text
    second.finalize()
    assert not (tmp_path / "wandb_run_id.txt").exists()
