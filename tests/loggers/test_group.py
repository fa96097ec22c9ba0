from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

from boltax.errors import ConfigurationError
from boltax.loggers import CsvLogger, Logger, LoggerGroup, NoLogger, TensorBoardLogger
from boltax.loggers import _group as group_module

METHODS = ["log_hyperparams", "log_metrics", "log_image", "log_figure", "log_histogram", "log_text"]
METHODS += ["flush", "finalize", "resume"]


class Recording(Logger):
    """Keeps every call."""

    name = "recording"

    def __init__(self):
        self.calls = []
        for method in METHODS:
            setattr(self, method, partial(self.record, method))

    def record(self, *call):
        self.calls.append(call)

    def log_metrics(self, metrics, step=None):
        """Hidden by that of the object."""


class Failing(Logger):
    name = "failing"

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def fail(self, *_):
        self.calls += 1
        raise self.error

    log_metrics = log_hyperparams = log_image = log_figure = log_histogram = log_text = fail
    flush = finalize = resume = fail

    @property
    def experiment(self):
        return self.fail()


def log_everything(group, image, figure):
    group.log_hyperparams({"lr": 0.1})
    group.log_metrics({"a": 1.0}, 1)
    group.log_image("a", image, 1)
    group.log_figure("a", figure, 1)
    group.log_histogram("a", [1.0], 1)
    group.log_text("a", "text", 1)
    group.flush()
    group.finalize("failed")
    group.resume(400)


def test_every_member_gets_every_call(image, figure):
    members = [Recording(), Recording()]
    log_everything(LoggerGroup(members), image, figure)
    for member in members:
        assert [name for name, *_ in member.calls] == METHODS
        assert member.calls[-2:] == [("finalize", "failed"), ("resume", 400)]


def test_a_failing_logger_is_reported_once_for_each_method(caplog, image, figure):
    other = Recording()
    group = LoggerGroup([Failing(OSError("disk full")), other])
    for _ in range(3):
        log_everything(group, image, figure)
    messages = [record.getMessage() for record in caplog.records]
    failed = [message.split(" failed in ")[1].split(",")[0] for message in messages]
    assert sorted(failed) == sorted(METHODS)  # a slow machine may make it wait before some
    assert all("failing" in message and "OSError: disk full" in message for message in messages)
    assert {record.name for record in caplog.records} == {"boltax"}
    assert len(other.calls) == 3 * len(METHODS)


def test_a_logger_that_fails_after_long_is_left_alone_for_longer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(group_module.time, "monotonic", lambda: now[0])

    class Slow(Failing):
        def log_metrics(self, *_):
            now[0] += 60.0
            self.fail()

    slow = Slow(TimeoutError("no answer"))
    group = LoggerGroup([slow])
    for _ in range(100):
        group.log_metrics({"a": 1.0}, 1)
        group.log_text("a", "text", 1)
        now[0] += 10.0
    assert slow.calls == 2
    group.finalize()
    assert slow.calls == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupt_passes(error):
    with pytest.raises(type(error), match=str(error) or None):
        LoggerGroup([Failing(error)]).log_metrics({"a": 1.0}, 1)


def test_hyperparameters_come_before_the_first_record_and_once(tmp_path):
    member = Recording()
    group = LoggerGroup([member], hyperparams={"lr": 0.1})
    group.flush()
    group.finalize()
    group.log_metrics({"a": 1.0}, 1)
    group.log_metrics({"a": 2.0}, 2)
    names = [name for name, *_ in member.calls]
    assert names == ["flush", "finalize", "log_hyperparams", "log_metrics", "log_metrics"]


def test_explicit_hyperparameters_take_their_place():
    member = Recording()
    group = LoggerGroup([member], hyperparams={"lr": 0.1})
    group.log_hyperparams({"lr": 0.2})
    group.log_metrics({"a": 1.0}, 1)
    assert member.calls[0] == ("log_hyperparams", {"lr": 0.2})
    assert len(member.calls) == 2


def test_a_group_that_is_never_written_to_leaves_no_file(tmp_path):
    members = [TensorBoardLogger(tmp_path / "run"), CsvLogger(tmp_path / "run")]
    group = LoggerGroup(members, hyperparams={"lr": 0.1})
    group.flush()
    group.finalize()
    assert not (tmp_path / "run").exists()


def test_the_experiment_is_that_of_the_first_member_that_has_one(tmp_path):
    tensorboard = TensorBoardLogger(tmp_path)
    group = LoggerGroup([CsvLogger(tmp_path), tensorboard])
    assert group.experiment is tensorboard.experiment
    assert group.log_dir == str(tmp_path)
    assert group.name == "csv+TensorBoard"
    group.finalize()


def test_without_an_experiment_its_calls_are_ignored_with_one_notice(tmp_path, caplog, figure):
    group = LoggerGroup([CsvLogger(tmp_path)])
    for _ in range(2):
        group.experiment.add_figure("a", figure, 1)
    assert len(caplog.records) == 1
    assert "logger.experiment.add_figure was ignored" in caplog.records[0].getMessage()


def test_an_experiment_that_cannot_start(tmp_path, caplog):
    tensorboard = TensorBoardLogger(tmp_path)
    group = LoggerGroup([Failing(OSError("no answer")), tensorboard])
    assert group.experiment is tensorboard.experiment
    assert "failed in experiment" in caplog.records[0].getMessage()
    group.finalize()
    with pytest.raises(OSError, match="no answer"):
        _ = LoggerGroup([Failing(OSError("no answer"))]).experiment


def test_arguments_that_fit_no_logger_are_the_callers_mistake(figure):
    group = LoggerGroup([NoLogger()])
    with pytest.raises(ConfigurationError, match=r"float64\[2, 2, 5\]; expected"):
        group.log_image("a", np.zeros((2, 2, 5)), 1)
    with pytest.raises(ConfigurationError, match="expected a matplotlib Figure"):
        group.log_figure("a", figure.axes[0], 1)


def test_a_logged_figure_is_closed_in_pyplot():
    drawn, _ = plt.subplots()
    LoggerGroup([]).log_figure("a", drawn, 1)
    assert plt.get_fignums() == []
