import subprocess
import sys

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from boltax.loggers import TensorBoardLogger


def values(events):
    return [(event, value) for event in events for value in event.summary.value]


def test_values_of_one_call_are_one_event_under_their_own_names(tmp_path, events):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"train/loss (mean)": 0.5, "β": 1e300}, step=7)
    logger.finalize()
    (event,) = {id(event): event for event, _ in values(events(tmp_path))}.values()
    assert [value.tag for value in event.summary.value] == ["train/loss (mean)", "β"]
    assert event.step == 7


def test_the_experiment_is_the_summary_writer_and_opens_the_file(tmp_path, events):
    logger = TensorBoardLogger(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(logger.experiment, SummaryWriter)
    logger.experiment.add_scalar("a", 1.0, 1)
    logger.experiment.close()
    logger.log_metrics({"b": 2.0}, 2)
    logger.finalize()
    assert [value.tag for _, value in values(events(tmp_path))] == ["a", "b"]


def test_figures_through_the_experiment(tmp_path, events, figure):
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_figure("curve", figure, 3)
    logger.finalize()
    ((event, value),) = values(events(tmp_path))
    assert (value.image.width, value.image.height, event.step) == (300, 200, 3)


def test_a_histogram_has_a_right_limit_for_each_count(tmp_path, events):
    logger = TensorBoardLogger(tmp_path)
    logger.log_histogram("w", np.array([1.0, 2.0, 4.0]), step=1)
    logger.finalize()
    ((_, value),) = values(events(tmp_path))
    histogram = value.histo
    assert len(histogram.bucket) == len(histogram.bucket_limit) == 65
    assert (histogram.bucket[0], histogram.bucket_limit[0]) == (0.0, 1.0)
    assert (histogram.min, histogram.max, histogram.num) == (1.0, 4.0, 3.0)
    assert (histogram.sum, histogram.sum_squares) == (7.0, 21.0)


def test_flush_brings_events_to_disk(tmp_path, events):
    logger = TensorBoardLogger(tmp_path)
    logger.flush()
    for step in range(5):
        logger.log_metrics({"a": step}, step)
    logger.flush()
    assert len(values(events(tmp_path))) == 5
    logger.finalize()


def ends(events):
    return [value.tag for _, value in values(events) if "session_end" in value.tag]


@pytest.mark.parametrize("status, expected", [("success", 1), ("failed", 1), ("interrupted", 0)])
def test_only_a_run_that_may_go_on_has_no_end(tmp_path, events, status, expected):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    logger.finalize(status)
    assert len(ends(events(tmp_path))) == expected


def test_the_file_is_closed_although_its_last_write_fails(tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    writer = logger.experiment

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(writer, "add_values", fail)
    with pytest.raises(OSError, match="no space left"):
        logger.finalize()
    assert writer.file_writer is None
    logger.finalize()


def test_tensorboard_shows_all_of_it_as_one_run(tmp_path, image, figure):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    logger = TensorBoardLogger(tmp_path / "Model" / "version_0")
    logger.log_hyperparams({"lr": 0.1, "optimizer": {"name": "sgd", "clip": float("inf")}})
    logger.log_metrics({"train/loss": 0.5}, 1)
    logger.log_image("picture", image, 1)
    logger.log_figure("curve", figure, 1)
    logger.log_histogram("weights", np.arange(10.0), 1)
    logger.log_text("model", "| a | b |", 1)
    logger.finalize()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    assert list(multiplexer.Runs()) == ["Model/version_0"]
    metadata = multiplexer.AllSummaryMetadata()["Model/version_0"]
    assert {tag: one.plugin_data.plugin_name for tag, one in metadata.items()} == {
        "_hparams_/session_start_info": "hparams",
        "_hparams_/session_end_info": "hparams",
        "train/loss": "scalars",
        "picture": "images",
        "curve": "images",
        "weights": "histograms",
        "model/text_summary": "text",
    }


def test_tensorboards_table_lists_hyperparameters_with_every_scalar(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    for version, rate in enumerate((0.1, 0.01)):
        logger = TensorBoardLogger(tmp_path / f"version_{version}")
        logger.log_hyperparams({"lr": rate, "optimizer": {"name": "sgd"}})
        logger.log_metrics({"train/loss": 0.5, "val/acc": 0.9}, 1)
        logger.finalize()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = Context(TBContext(data_provider=provider))
    request, experiment = RequestContext(), "experiment"
    shown = context.experiment_from_metadata(
        request, experiment, True, context.hparams_metadata(request, experiment), None
    )
    assert {info.name for info in shown.hparam_infos} == {"lr", "optimizer/name"}
    assert [info.name.tag for info in shown.metric_infos] == ["train/loss", "val/acc"]
    assert {info.name.group for info in shown.metric_infos} == {""}


def test_torch_is_not_taken_along(tmp_path):
    code = (
        "import sys; from boltax.loggers import TensorBoardLogger\n"
        "logger = TensorBoardLogger('run'); logger.log_metrics({'loss': 1.0}, 1)\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_training_and_validation_of_a_metric_are_on_one_chart(tmp_path, events):
    from tensorboardX.proto.layout_pb2 import Layout

    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "train/a.b": 0.1, "train/grad_norm": 1.0}, 1)
    for step in (1, 2):
        logger.log_metrics({"val/loss": 0.4, "val/a.b": 0.2, "val/f1": 0.3}, step)
    logger.finalize()
    found = [v for _, v in values(events(tmp_path)) if v.tag == "custom_scalars__config__"]
    (layout,) = (Layout.FromString(value.tensor.string_val[0]) for value in found)
    (category,) = layout.category
    tags = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert tags == {"loss": ["^(train|val)/loss$"], "a.b": [r"^(train|val)/a\.b$"]}
