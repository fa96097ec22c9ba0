"""The TensorBoard logger, the default one: an event file in the folder of the run."""

import os
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from boltax.loggers._base import Logger
from boltax.loggers._images import Images, as_images, figure_png, grid, png, png_size
from boltax.loggers._values import Histogram, flatten, histogram, is_finite, scalars

if TYPE_CHECKING:
    from boltax.loggers._event_file import EventWriter


class TensorBoardLogger(Logger):
    """Writes scalars, hyperparameters, images, figures, histograms and text for TensorBoard.

    The event file is made at the first write. Values of one call are one event. A hyperparameter
    table and all scalars show as one run, without a folder beside it. The tab CUSTOM SCALARS shows
    training and validation of each metric on one chart.

    Args:
        log_dir: the folder of the run; ``tensorboard --logdir`` may name it or any above it.

    Example:
        >>> logger = TensorBoardLogger("runs/example")
        >>> logger.log_metrics({"train/loss": 0.5}, step=10)
        >>> logger.experiment.add_scalar("anything/else", 1.0, 10)  # tensorboardX's own writer
        >>> logger.finalize()
    """

    name = "TensorBoard"

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._folder = os.fspath(log_dir)
        self.log_dir = self._folder
        self._writer: EventWriter | None = None
        self._resumed_at: int | None = None
        self._end_of_session: Any = None
        self._trained: set[str] = set()
        self._is_laid_out = False

    @property
    def experiment(self) -> "EventWriter":
        """The tensorboardX `SummaryWriter`; asking for it makes the event file."""
        if self._writer is None:
            with _without_torch():
                from boltax.loggers._event_file import EventWriter  # imports tensorboardX

            self._writer = EventWriter(self._folder)
        step, self._resumed_at = self._resumed_at, None
        if step is not None:
            self._writer.restart(step)
        return self._writer

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes the scalars, under their names as they are."""
        if values := scalars(metrics):
            self._add(step, *({"tag": n, "simple_value": float(v)} for n, v in values.items()))
            if not self._is_laid_out:
                self._lay_out(values)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Writes the hyperparameters for the HPARAMS tab, which lists every scalar beside them."""
        writer = self.experiment
        from tensorboardX.summary import hparams

        known = {n: v if is_finite(v) else str(v) for n, v in flatten(params).items()}
        # TensorBoard finds the columns by itself when the first of the three, the description of
        # the experiment, is left out. The last one says how the run ended, so it comes then.
        _, start, self._end_of_session = hparams(known, {})
        writer.add_values(start.value, None)

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Writes an image; a batch becomes a grid."""
        canvas: Images = grid(as_images(images))
        self._add_png(key, png(canvas), canvas.shape[-1], step)

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Writes a figure as an image."""
        self._add_png(key, figure_png(figure), 4, step)

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Writes a histogram; nothing when no value is finite."""
        if (counted := histogram(values)) is not None:
            self._add(step, {"tag": key, "histo": _histogram_fields(counted)})

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Writes text, which TensorBoard shows as Markdown."""
        writer = self.experiment
        from tensorboardX.summary import text as text_summary

        writer.add_values(text_summary(key, text).value, step)

    def resume(self, step: int) -> None:
        """Has the next write open an event file that supersedes those of later steps."""
        self._resumed_at = step

    def flush(self) -> None:
        """Brings all events to disk."""
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: str = "success") -> None:
        """Closes the event file; the next write opens a further one beside it.

        The HPARAMS tab learns of success and failure. An interrupted run may go on, so that the
        tab is not told of an end.
        """
        writer, self._writer = self._writer, None
        end, self._end_of_session = self._end_of_session, None
        if writer is None:
            return
        try:
            if end is not None and status != "interrupted":
                writer.add_values(_ended(end, status == "success").value, None)
        finally:
            writer.close()

    def _lay_out(self, names: Iterable[str]) -> None:
        """Describes the charts, at the first validation of metrics that training has, too."""
        parts = [name.partition("/") for name in names]
        self._trained |= {name for phase, _, name in parts if phase == "train"}
        both = [name for phase, _, name in parts if phase == "val" and name in self._trained]
        if not both:
            return
        self._is_laid_out = True
        from tensorboardX.summary import custom_scalars

        charts = {name: ["Multiline", [f"^(train|val)/{re.escape(name)}$"]] for name in both}
        summary = custom_scalars({"training and validation": charts})
        self.experiment.add_values(summary.value, None)

    def _add_png(self, key: str, data: bytes, channels: int, step: int | None) -> None:
        width, height = png_size(data)
        image = {"width": width, "height": height, "colorspace": channels}
        self._add(step, {"tag": key, "image": image | {"encoded_image_string": data}})

    def _add(self, step: int | None, *fields: dict[str, Any]) -> None:
        self.experiment.add_values(fields, step)


def _ended(end: Any, is_success: bool) -> Any:
    """TensorboardX's record of the end of a session, which always tells of success."""
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2

    messages: Any = plugin_hparams_pb2  # what protobuf makes is not seen by a type checker
    statuses: Any = api_pb2
    name = "STATUS_SUCCESS" if is_success else "STATUS_FAILURE"
    plugin = end.value[0].metadata.plugin_data
    data = messages.HParamsPluginData.FromString(plugin.content)
    data.session_end_info.status = statuses.Status.Value(name)
    plugin.content = data.SerializeToString()
    return end


@contextmanager
def _without_torch() -> Generator[None]:
    """Around the import of tensorboardX, which takes torch along where that is installed.

    It needs it for an annotation only; that costs 180 MB, and more time than all the rest.
    """
    if "torch" in sys.modules:
        yield
        return
    absent: Any = None
    sys.modules["torch"] = absent  # whoever imports it now is told that it is not installed
    try:
        yield
    finally:
        del sys.modules["torch"]


def _histogram_fields(histogram: Histogram) -> dict[str, Any]:
    """TensorBoard knows the right limit of a bin only, so an empty bin goes before the first."""
    return {
        "min": histogram.minimum,
        "max": histogram.maximum,
        "num": float(histogram.counts.sum()),
        "sum": histogram.total,
        "sum_squares": histogram.squares,
        "bucket_limit": histogram.edges.tolist(),
        "bucket": [0.0, *histogram.counts.tolist()],
    }
