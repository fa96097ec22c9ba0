"""Several loggers as one, none of which can stop the run."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from boltax.loggers._base import Logger, NoExperiment
from boltax.loggers._images import as_images, check_figure, release_figure

_log = logging.getLogger("boltax")

_PATIENCE = 10.0  # a logger that failed after t seconds is left alone for this many times t
_SLOW = 0.1  # seconds; what fails faster than that may be tried each time


class LoggerGroup(Logger):
    """Passes every record to all its loggers.

    A logger that raises is reported once for each method, through ``logging.getLogger("boltax")``;
    the others still get the value, and the run goes on. As a failure may have taken long, of a
    server that does not answer say, the logger is then left alone for ten times as long: failing
    loggers cost the run a tenth of its time at most. Arguments that fit no logger, such as an
    image with five channels, are the caller's mistake and do raise.

    Args:
        loggers: the members.
        hyperparams: logged before the first record, so that a run which is only loaded writes
            nothing; an explicit `log_hyperparams` takes their place.

    Attributes:
        loggers: the members.

    Example:
        >>> from boltax.loggers import CsvLogger, LoggerGroup, TensorBoardLogger
        >>> group = LoggerGroup([TensorBoardLogger("runs/example"), CsvLogger("runs/example")])
        >>> group.log_metrics({"train/loss": 0.5}, step=1)
        >>> group.finalize()
    """

    def __init__(
        self, loggers: Sequence[Logger], hyperparams: Mapping[str, Any] | None = None
    ) -> None:
        self.loggers = tuple(loggers)
        self.name: str = "+".join(logger.name for logger in self.loggers) or "none"
        self.log_dir: str | None = next((m.log_dir for m in self.loggers if m.log_dir), None)
        self._pending = dict(hyperparams or {})
        self._reported: set[tuple[int, str]] = set()
        self._wait_until: dict[int, float] = {}
        self._no_experiment = NoExperiment(notice=True)

    @property
    def experiment(self) -> Any:
        """The store's own object of the first logger which has one; else one that ignores calls.

        Raises:
            Exception: what the members raised, when none of them has one.
        """
        failure: Exception | None = None
        for index, logger in enumerate(self.loggers):
            try:
                if (experiment := logger.experiment) is not None:
                    return experiment
            except Exception as error:  # noqa: BLE001 - any member's failure
                self._report(index, "experiment", error)
                failure = error
        if failure is not None:
            raise failure
        return self._no_experiment

    def resume(self, step: int) -> None:
        """Has all members go on after a step; see `Logger.resume`."""
        self._wait_until.clear()  # one that missed it would mix the records of two runs
        self._each("resume", step)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Records numbers under their names; see `Logger.log_metrics`."""
        self._record("log_metrics", metrics, step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Records what the run was made with; see `Logger.log_hyperparams`."""
        self._pending = {}
        self._each("log_hyperparams", params)

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Records one image or a batch of them; see `Logger.log_image`.

        Raises:
            ConfigurationError: when the images are none.
        """
        self._record("log_image", key, as_images(images), step)

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Records a matplotlib figure and takes it off pyplot's list; see `Logger.log_figure`.

        Raises:
            ConfigurationError: when the figure is none.
        """
        check_figure(figure)
        self._record("log_figure", key, figure, step)
        release_figure(figure)

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Records how values are distributed; see `Logger.log_histogram`."""
        self._record("log_histogram", key, values, step)

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Records text; see `Logger.log_text`."""
        self._record("log_text", key, text, step)

    def flush(self) -> None:
        """Brings everything that was recorded to disk."""
        self._each("flush")

    def finalize(self, status: str = "success") -> None:
        """Closes all members; writing again reopens them."""
        self._wait_until.clear()  # each gets the chance to close
        self._each("finalize", status)

    def _record(self, method: str, *args: Any) -> None:
        if self._pending:
            self.log_hyperparams(self._pending)
        self._each(method, *args)

    def _each(self, method: str, *args: Any) -> None:
        for index, logger in enumerate(self.loggers):
            started = time.monotonic()
            if started < self._wait_until.get(index, started):
                continue
            try:
                getattr(logger, method)(*args)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                now = time.monotonic()
                if now - started > _SLOW:
                    self._wait_until[index] = now + _PATIENCE * (now - started)
                self._report(index, method, error)

    def _report(self, index: int, method: str, error: Exception) -> None:
        if (index, method) not in self._reported:
            self._reported.add((index, method))
            _log.warning(
                "The logger %s failed in %s, and the run goes on. This is reported once. %s: %s",
                self.loggers[index].name,
                method,
                type(error).__name__,
                error,
            )
