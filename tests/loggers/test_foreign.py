from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from boltax.loggers import ForeignLogger


class Minimal:
    """The least that is a logger."""

    def __init__(self):
        self.calls = []

    def log_metrics(self, metrics, step):
        self.calls.append((metrics, step))


class Calls:
    """An object on which every method of those named exists and is recorded."""

    def __init__(self, *methods):
        self.calls = []
        for name in methods:
            setattr(self, name, self._recorder(name))

    def _recorder(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_the_least_logger_gets_plain_numbers():
    target = Minimal()
    logger = ForeignLogger(target)
    logger.log_metrics({"a": np.float32(0.5), "b": np.eye(2)}, 3)
    logger.log_metrics({"b": np.eye(2)}, 3)
    logger.log_hyperparams({"lr": 0.1})
    logger.flush()
    logger.finalize()
    assert target.calls == [({"a": 0.5}, 3)]
    assert type(target.calls[0][0]["a"]) is float
    assert (logger.name, logger.log_dir, logger.experiment) == ("Minimal", None, None)


def test_what_has_no_place_is_left_out_with_one_notice_each(caplog, image, figure):
    logger = ForeignLogger(Minimal())
    for _ in range(2):
        logger.log_image("a", image, 1)
        logger.log_figure("a", figure, 1)
        logger.log_histogram("a", [1.0], 1)
        logger.log_text("a", "text", 1)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        f"The logger Minimal keeps no {what}"
        for what in ("images", "figures", "histograms", "text")
    ]


def test_its_own_methods_come_first(image, figure):
    methods = ("log_image", "log_figure", "log_histogram", "log_text", "save", "finalize")
    target = Calls("log_metrics", "log_hyperparams", *methods)
    target.experiment = Calls("add_image", "add_figure", "add_histogram", "add_text")
    logger = ForeignLogger(target)
    logger.log_image("a", np.stack([image, image]), 1)
    logger.log_figure("a", figure, 1)
    logger.log_histogram("a", [1.0], 1)
    logger.log_text("a", "text", 1)
    logger.flush()
    logger.finalize("failed")
    assert [name for name, _, _ in target.calls] == list(methods)
    key, images, step = target.calls[0][1]
    assert (key, len(images), images[0].shape, step) == ("a", 2, (2, 2, 3), 1)
    assert target.experiment.calls == []


def test_then_those_of_its_experiment(image, figure):
    target = Minimal()
    target.experiment = Calls("add_image", "add_figure", "add_histogram", "add_text")
    logger = ForeignLogger(target)
    logger.log_image("a", np.stack([image, image]), 1)
    logger.log_figure("a", figure, 1)
    logger.log_histogram("a", [1.0], 1)
    logger.log_histogram("a", [np.nan], 1)
    logger.log_text("a", "text", 1)
    assert [name for name, _, _ in target.experiment.calls] == [
        "add_image",
        "add_figure",
        "add_histogram",
        "add_text",
    ]
    _, args, keywords = target.experiment.calls[0]
    assert args[1].shape == (2, 6, 3)
    assert keywords == {"global_step": 1, "dataformats": "HWC"}


def test_a_figure_becomes_an_image_where_only_images_are_taken(figure):
    target = Calls("log_metrics", "log_image")
    ForeignLogger(target).log_figure("a", figure, 1)
    ((_, (_, images, _), _),) = target.calls
    assert images[0].shape == (200, 300, 4)


def test_a_figure_stays_open_where_the_experiment_would_close_it():
    closed = []

    def add_figure(tag, figure, global_step=None, close=True):
        closed.append(close)

    target = Minimal()
    target.experiment = SimpleNamespace(add_figure=add_figure)
    drawn, _ = plt.subplots()
    ForeignLogger(target).log_figure("a", drawn, 1)
    plt.close(drawn)
    assert closed == [False]


def test_text_as_a_table_for_lightnings_wandb_logger():
    tables = []

    class Target(Minimal):
        def log_text(self, key, columns=None, data=None, dataframe=None, step=None):
            tables.append((key, columns, data, step))

    ForeignLogger(Target()).log_text("model", "Dense", 3)
    assert tables == [("model", ["text"], [["Dense"]], 3)]


def test_the_run_of_an_mlflow_client_takes_files(image, figure):
    files = []

    def log_artifact(run_id, path, folder):
        files.append((run_id, f"{folder}/{path.rpartition('/')[2]}"))

    target = Minimal()
    target.experiment = SimpleNamespace(log_artifact=log_artifact)
    target.run_id = "run"
    logger = ForeignLogger(target)
    logger.log_image("val/a", image, 1)
    logger.log_figure("a", figure, 1)
    logger.log_histogram("a", [1.0], 1)
    logger.log_text("a", "text")
    assert files == [
        ("run", "images/val/a_000001.png"),
        ("run", "figures/a_000001.png"),
        ("run", "histograms/a_000001.csv"),
        ("run", "text/a.txt"),
    ]


def test_finalize_is_passed_on_once_until_the_next_write():
    target = Calls("log_metrics", "finalize")
    logger = ForeignLogger(target)
    for _ in range(2):
        logger.log_metrics({"a": 1.0}, 1)
        logger.finalize()
        logger.finalize()
    assert [name for name, _, _ in target.calls].count("finalize") == 2


def test_the_folder_of_the_logger_is_known(tmp_path):
    target = Minimal()
    target.save_dir = tmp_path
    assert ForeignLogger(target).log_dir == str(tmp_path)
    target.log_dir = "runs/mine"
    assert ForeignLogger(target).log_dir == "runs/mine"


def test_lightnings_own_loggers_take_everything(tmp_path, caplog, image, figure):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    for target in (
        loggers.CSVLogger(tmp_path, name="csv"),
        loggers.TensorBoardLogger(tmp_path, name="tensorboard"),
    ):
        logger = ForeignLogger(target)
        assert logger.log_dir == target.log_dir
        logger.log_hyperparams({"lr": 0.1, "model": {"name": "mlp"}})
        logger.log_metrics({"train/loss": 0.5}, 1)
        logger.log_image("a", image, 1)
        logger.log_figure("a", figure, 1)
        logger.log_histogram("a", np.arange(3.0), 1)
        logger.log_text("a", "text", 1)
        logger.flush()
        logger.finalize()
    assert (tmp_path / "csv/version_0/metrics.csv").read_text() == "step,train/loss\n1,0.5\n"
    assert {
        record.getMessage().split()[2] for record in caplog.records if record.name == "boltax"
    } == {"CSVLogger"}


def test_lightnings_wandb_logger_takes_what_it_can(wandb_offline, tmp_path, image, figure):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = ForeignLogger(loggers.WandbLogger(save_dir=tmp_path, offline=True))
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"train/loss": 0.5}, 1)
    logger.log_image("a", np.stack([image, 255 - image]), 1)
    logger.log_figure("b", figure, 1)
    logger.log_text("c", "text", 1)
    logger.finalize()
    logger.experiment.finish()
    wandb_offline.teardown()
    assert len(list(tmp_path.rglob("*.png"))) == 3
    assert len(list(tmp_path.rglob("*.table.json"))) == 1
