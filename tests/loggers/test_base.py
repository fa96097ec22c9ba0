import logging

import pytest

from boltax.loggers import Logger, NoLogger


class OnlyMetrics(Logger):
    name = "mine"

    def log_metrics(self, metrics, step=None):
        self.metrics = metrics


def test_a_logger_needs_log_metrics():
    with pytest.raises(TypeError, match="log_metrics"):
        Logger()


def test_the_other_methods_have_defaults_that_say_once_what_is_left_out(caplog, image, figure):
    logger = OnlyMetrics()
    for _ in range(2):
        logger.log_hyperparams({"lr": 0.1})
        logger.log_image("a", image)
        logger.log_figure("a", figure)
        logger.log_histogram("a", [1.0])
        logger.log_text("a", "text")
        logger.flush()
        logger.finalize()
    kinds = [record.getMessage().split("keeps no ")[1].split(";")[0] for record in caplog.records]
    assert kinds == ["images", "figures", "histograms", "text"]
    assert all("mine" in record.getMessage() for record in caplog.records)
    assert logger.experiment is None


def test_no_logger_takes_every_call_and_says_nothing(caplog, image):
    logger = NoLogger()
    logger.log_metrics({"a": 1.0}, 1)
    logger.log_image("a", image)
    logger.experiment.add_figure("a", object(), 3)
    assert not hasattr(logger.experiment, "__array__")
    assert not caplog.records


def test_messages_go_to_the_logger_of_the_package(caplog, image):
    with caplog.at_level(logging.WARNING, logger="boltax"):
        OnlyMetrics().log_image("a", image)
    assert caplog.records[0].name == "boltax"
