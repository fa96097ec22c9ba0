"""What every logger does, read back from wherever it wrote it. A new logger is one more row."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from boltax.loggers import (
    CsvLogger,
    ForeignLogger,
    Logger,
    LoggerGroup,
    MlflowLogger,
    NoLogger,
    TensorBoardLogger,
    WandbLogger,
)


@dataclass
class Read:
    """What was found; None for what a logger does not keep or in no form that can be read."""

    scalars: dict[tuple[str, int | None], float] | None = field(default_factory=dict)
    hyperparams: dict[str, str] | None = field(default_factory=dict)
    images: list[np.ndarray] | None = field(default_factory=list)  # and figures
    histograms: list[int] | None = field(default_factory=list)  # how many values each has
    texts: list[str] | None = field(default_factory=list)


class Recorder:
    """A minimal object with Lightning's protocol that keeps what it gets in memory."""

    def __init__(self) -> None:
        self.read = Read()
        self.finalized: list[str] = []

    def log_metrics(self, metrics, step=None):
        self.read.scalars.update({(name, step): value for name, value in metrics.items()})

    def log_hyperparams(self, params):
        self.read.hyperparams.update({name: str(value) for name, value in params.items()})

    def log_image(self, key, images, step=None):
        self.read.images.extend(images)

    def log_histogram(self, key, values, step=None):
        self.read.histograms.append(int(np.isfinite(values).sum()))

    def log_text(self, key, text, step=None):
        self.read.texts.append(text)

    def finalize(self, status):
        self.finalized.append(status)


def png(data: bytes) -> np.ndarray:
    return (imread(io.BytesIO(data), format="png") * 255).round().astype(np.uint8)


def csv_rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text() if path.exists() else ""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def metric_cells(path: Path) -> dict[tuple[str, int], float]:
    rows = csv_rows(path)
    return {
        (name, int(row["step"])): float(cell)
        for row in rows
        for name, cell in row.items()
        if cell and name != "step"
    }


def read_files(folder: Path, read: Read) -> Read:
    """The files of a CSV logger or of MLflow's artifacts."""
    read.images = [png(path.read_bytes()) for path in sorted(folder.rglob("*.png"))]
    tables = sorted(folder.glob("**/histograms/**/*.csv"))
    read.histograms = [sum(int(row["count"]) for row in csv_rows(path)) for path in tables]
    read.texts = [path.read_text() for path in sorted(folder.rglob("*.txt"))]
    return read


def read_csv(folder: Path, _: Any) -> Read:
    read = Read(scalars=metric_cells(folder / "metrics.csv"))
    rows = csv_rows(folder / "hyperparameters.csv")
    read.hyperparams = {row["name"]: row["value"] for row in rows}
    return read_files(folder, read)


def read_tensorboard(folder: Path, request: pytest.FixtureRequest) -> Read:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    read = Read()
    for event in request.getfixturevalue("events")(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                read.scalars[value.tag, event.step] = value.simple_value
            elif value.HasField("image"):
                read.images.append(png(value.image.encoded_image_string))
            elif value.HasField("histo"):
                read.histograms.append(round(sum(value.histo.bucket)))
            elif value.tag.endswith("/text_summary"):
                read.texts.append(value.tensor.string_val[0].decode())
            elif value.tag.startswith("_hparams_"):
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                for name, held in data.session_start_info.hparams.items():
                    number = f"{held.number_value:g}"
                    read.hyperparams[name] = held.string_value or number
    return read


def read_wandb(folder: Path, request: pytest.FixtureRequest) -> Read:
    request.getfixturevalue("wandb_offline").teardown()  # its service writes a little later
    read = Read()
    for record in request.getfixturevalue("wandb_records")(folder):
        for config in (record.run.config, record.config):
            read.hyperparams |= {n[0]: str(value) for n, value in items(config.update).items()}
        values = items(record.history.item)
        step = values.get(("step",))
        for path, value in values.items():
            if path[1:] == ("values",):
                read.histograms.append(sum(value))
            elif len(path) == 1:
                read.scalars[path[0], step] = value
    read.images = [png(path.read_bytes()) for path in sorted(folder.rglob("*.png"))]
    pages = [path.read_text() for path in sorted(folder.rglob("*.html"))]
    read.texts = [page.removeprefix("<pre>").removesuffix("</pre>") for page in pages]
    return read


def items(records: Any) -> dict[tuple[str, ...], Any]:
    """W&B's pairs of a name, nested or not, and JSON."""
    return {tuple(r.nested_key) or (r.key,): json.loads(r.value_json) for r in records}


def read_mlflow(folder: Path, _: Any) -> Read:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db")
    read = read_files(folder / "mlflow_artifacts", Read())
    experiments = [one.experiment_id for one in client.search_experiments()]
    for run in client.search_runs(experiments):
        read.hyperparams |= run.data.params
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                read.scalars[name, metric.step] = metric.value
    return read


def read_nothing(folder: Path, _: Any) -> Read:
    assert not list(folder.iterdir())
    return Read(None, None, None, None, None)


def read_recorder(_: Path, request: pytest.FixtureRequest) -> Read:
    return request.node.recorder.read


def read_lightning_csv(folder: Path, _: Any) -> Read:
    read = Read(None, None, None, None, None)
    for path in folder.rglob("metrics.csv"):
        read.scalars = metric_cells(path)
    return read


def make_recorder(folder: Path, request: pytest.FixtureRequest) -> Logger:
    request.node.recorder = Recorder()
    return ForeignLogger(request.node.recorder)


def make_wandb(folder: Path, request: pytest.FixtureRequest) -> Logger:
    request.getfixturevalue("wandb_offline")
    return WandbLogger(folder, project="boltax", run_name="table")


def make_mlflow(folder: Path, request: pytest.FixtureRequest) -> Logger:
    shutil.copy(request.getfixturevalue("mlflow_store"), folder / "mlflow.db")
    return MlflowLogger(folder)


def make_lightning(name: str) -> Callable[[Path, Any], Logger]:
    def make(folder: Path, _: Any) -> Logger:
        loggers = pytest.importorskip("lightning.pytorch.loggers")
        return ForeignLogger(getattr(loggers, name)(folder, name="lightning"))

    return make


ROWS = [
    pytest.param(lambda folder, _: CsvLogger(folder), read_csv, id="csv"),
    pytest.param(lambda folder, _: TensorBoardLogger(folder), read_tensorboard, id="tensorboard"),
    pytest.param(make_wandb, read_wandb, id="wandb"),
    pytest.param(make_mlflow, read_mlflow, id="mlflow", marks=pytest.mark.slow),
    pytest.param(lambda folder, _: NoLogger(), read_nothing, id="none"),
    pytest.param(make_recorder, read_recorder, id="recorder"),
    pytest.param(
        lambda folder, _: LoggerGroup([NoLogger(), CsvLogger(folder)]), read_csv, id="group"
    ),
    pytest.param(make_lightning("CSVLogger"), read_lightning_csv, id="lightning-csv"),
    pytest.param(make_lightning("TensorBoardLogger"), read_tensorboard, id="lightning-tensorboard"),
]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    return made


def pytest_generate_tests(metafunc):
    if "make" in metafunc.fixturenames:
        metafunc.parametrize("make, read", ROWS)


def test_making_one_writes_nothing(make, read, folder, request):
    before = set(folder.rglob("*"))
    logger = make(folder, request)
    made = set(folder.rglob("*")) - before
    assert isinstance(logger.name, str)
    assert {path.name for path in made} <= {"mlflow.db"}  # that is the copy of the test


def test_scalars_under_keys_with_slashes(make, read, folder, request):
    logger = make(folder, request)
    logger.log_metrics({"train/loss": 0.5, "train/detail/a.b": 3}, step=10)
    logger.log_metrics({"train/loss": 0.25, "val/acc": 1.0}, step=20)
    logger.finalize()
    expected = {
        ("train/loss", 10): 0.5,
        ("train/detail/a.b", 10): 3.0,
        ("train/loss", 20): 0.25,
        ("val/acc", 20): 1.0,
    }
    scalars = read(folder, request).scalars
    assert scalars is None or expected.items() <= scalars.items()


def test_numbers_of_numpy_and_jax_and_no_arrays(make, read, folder, request):
    logger = make(folder, request)
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": np.asarray(2.0), "d": jnp.asarray(4.0)}
    logger.log_metrics(values | {"confusion": np.eye(3), "name": "text"}, step=np.int64(1))
    logger.finalize()
    scalars = read(folder, request).scalars
    if scalars is not None:
        assert [scalars[name, 1] for name in "abcd"] == [0.5, 3.0, 2.0, 4.0]
        assert not {("confusion", 1), ("name", 1)} & scalars.keys()


def test_values_that_are_not_finite(make, read, folder, request):
    logger = make(folder, request)
    logger.log_metrics({"nan": float("nan"), "inf": -math.inf}, step=1)
    logger.finalize()
    scalars = read(folder, request).scalars
    if scalars is not None:
        assert math.isnan(scalars["nan", 1])
        assert scalars["inf", 1] < -1e308


def test_hyperparameters_are_flattened(make, read, folder, request):
    logger = make(folder, request)
    logger.log_hyperparams(
        {"lr": 0.5, "optimizer": {"name": "sgd", "nested": {"sizes": (3, 3)}}, "act_fn": max}
    )
    logger.finalize()
    found = read(folder, request).hyperparams
    expected = {"lr": "0.5", "optimizer/name": "sgd", "act_fn": "max"}
    expected["optimizer/nested/sizes"] = "(3, 3)"
    assert found is None or expected.items() <= found.items()


def test_an_image(make, read, folder, request, image):
    logger = make(folder, request)
    logger.log_image("val/picture", image, step=5)
    logger.finalize()
    found = read(folder, request).images
    if found is not None:
        np.testing.assert_array_equal(found[0][..., :3], image)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 4), (7, 4, 5, 3)])
def test_images_of_every_kind(make, read, folder, request, shape):
    logger = make(folder, request)
    logger.log_image("picture", np.linspace(0, 1, math.prod(shape)).reshape(shape), step=5)
    logger.finalize()
    found = read(folder, request).images
    assert found is None or len(found) in (1, 7)
    assert found is None or all(one.max() >= 36 for one in found)


def test_a_figure(make, read, folder, request, figure):
    canvas = figure.canvas
    logger = make(folder, request)
    logger.log_figure("val/curve", figure, step=5)
    logger.finalize()
    found = read(folder, request).images
    if found is not None:
        assert found[0].shape[:2] == (200, 300)
        assert 0 < (found[0][..., 0] < 128).mean() < 0.5
    assert figure.canvas is canvas or "lightning" in request.node.name


def test_a_histogram(make, read, folder, request):
    logger = make(folder, request)
    values = np.append(np.random.default_rng(0).normal(size=(10, 10)), [np.nan])
    logger.log_histogram("weights/dense", values, step=5)
    logger.log_histogram("weights/none", np.array([np.nan]), step=5)
    logger.finalize()
    found = read(folder, request).histograms
    assert found is None or found == [100]


def test_text(make, read, folder, request):
    logger = make(folder, request)
    logger.log_text("model", "Dense  3\n  bias", step=0)
    logger.finalize()
    found = read(folder, request).texts
    assert found is None or [text for text in found if "bias" in text] == ["Dense  3\n  bias"]


def test_finalize_twice_and_without_a_write(make, read, folder, request):
    logger = make(folder, request)
    logger.finalize()
    logger.log_metrics({"train/loss": 0.5}, step=10)
    logger.flush()
    logger.finalize("failed")
    logger.finalize("failed")
    scalars = read(folder, request).scalars
    assert scalars is None or scalars["train/loss", 10] == 0.5


def test_writing_after_finalize_goes_on(make, read, folder, request):
    logger = make(folder, request)
    logger.log_metrics({"train/loss": 0.5}, step=10)
    logger.finalize()
    logger.log_metrics({"train/loss": 0.25}, step=20)
    logger.finalize()
    scalars = read(folder, request).scalars
    if scalars is not None:
        assert (scalars["train/loss", 10], scalars["train/loss", 20]) == (0.5, 0.25)


def test_an_earlier_step_may_come_late(make, read, folder, request):
    logger = make(folder, request)
    for step, value in ((10, 1.0), (20, 2.0), (15, 1.5)):
        logger.log_metrics({"val/acc": value}, step=step)
    logger.finalize()
    scalars = read(folder, request).scalars
    if scalars is not None:
        assert [scalars["val/acc", step] for step in (10, 15, 20)] == [1.0, 1.5, 2.0]


def test_nothing_is_printed(make, read, folder, request, capfd, image):
    logger = make(folder, request)
    capfd.readouterr()
    logger.log_metrics({"train/loss": float("nan")}, step=1)
    logger.log_image("picture", image, step=1)
    logger.finalize()
    assert "lightning" in request.node.name or capfd.readouterr() == ("", "")
