"""What a logger is, and the one that logs nothing.

    class PrintLogger(Logger):
        name = "print"

        def log_metrics(self, metrics, step=None):
            print(step, dict(metrics))

A logger receives finished records on the host. It opens its files at the first write, so that a
run that is only loaded leaves nothing behind, and may be written to again after `finalize`. It
knows nothing of the loop and never changes what it is given.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger("boltax")


class Logger(ABC):
    """Where the records of a run go; write a subclass with `log_metrics` for a store of your own.

    Each other method has a default that does no harm. A logger may raise: the group that holds it
    reports that once, and the run goes on.

    Attributes:
        name: what messages call it.
        log_dir: the folder that it writes to, or None where there is none.
    """

    name: str = "logger"
    log_dir: str | None = None

    @property
    def experiment(self) -> Any:
        """The writer or run underneath, for what this interface lacks; None where there is none."""
        return None

    def resume(self, step: int) -> None:  # noqa: B027 - may be left out
        """Called once, before the first record, when a run goes on after `step`.

        What was recorded for later steps is dropped or superseded. What was recorded at `step`
        stays: the record of a step comes before its checkpoint. That of an epoch which ends there
        may come after it, and is then recorded again with the same values.

        Args:
            step: completed optimizer updates; 0 when a run starts anew in its old place.
        """

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Records numbers under their names.

        Args:
            metrics: name, e.g. ``"train/loss"``, to a number; a logger of scalars passes over
                arrays with more than one element.
            step: completed optimizer updates.
        """

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # noqa: B027 - may be left out
        """Records what the run was made with.

        Args:
            params: hyperparameters, nested or not.
        """

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Records one image or a batch of them.

        Args:
            key: the name to show it under.
            images: ``[H, W]``, ``[H, W, C]`` or ``[N, H, W, C]`` with 1, 3 or 4 channels; floats
                from 0 to 1 or whole numbers from 0 to 255.
            step: completed optimizer updates.
        """
        self.skip("images")

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Records a matplotlib figure.

        Args:
            key: the name to show it under.
            figure: the figure; its canvas stays as it is.
            step: completed optimizer updates.
        """
        self.skip("figures")

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Records how values are distributed.

        Args:
            key: the name to show it under.
            values: numbers of any shape; those that are not finite are left out.
            step: completed optimizer updates.
        """
        self.skip("histograms")

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Records text.

        Args:
            key: the name to show it under.
            text: plain text or Markdown.
            step: completed optimizer updates.
        """
        self.skip("text")

    def flush(self) -> None:  # noqa: B027 - may be left out
        """Brings everything that was recorded to disk."""

    def finalize(self, status: str = "success") -> None:  # noqa: B027 - may be left out
        """Closes files and ends threads; may be called twice, and writing again reopens.

        Args:
            status: how the run ended: ``"success"``; ``"failed"``, by an exception; or
                ``"interrupted"``, by a signal or Ctrl-C, so that it may go on later.
        """

    def skip(self, what: str) -> None:
        """Says, the first time, that this logger does not keep a kind of value.

        Args:
            what: the kind in the plural, e.g. ``"images"``.
        """
        said: set[str] = vars(self).setdefault("_skipped", set())
        if what not in said:
            said.add(what)
            _log.warning("The logger %s keeps no %s; they are left out there.", self.name, what)


class NoExperiment:
    """Stands in for a writer where there is none: every method may be called and does nothing.

    Code that calls ``self.logger.experiment.add_figure(...)`` so runs with any logger, or none.

    Args:
        notice: whether to say, the first time, that a call was ignored.
    """

    def __init__(self, notice: bool = False) -> None:
        self._notice = notice

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):  # protocols such as copying and array conversion
            raise AttributeError(method)

        def ignored(*_: Any, **__: Any) -> None:
            if self._notice:
                self._notice = False
                _log.warning(
                    "logger.experiment.%s was ignored, and so will others be: no logger of this "
                    "run has an experiment. Write logger.log_image, log_figure, log_histogram or "
                    "log_text, which every logger takes.",
                    method,
                )

        return ignored


class NoLogger(Logger):
    """Records nothing.

    Example:
        >>> NoLogger().log_metrics({"train/loss": 0.5}, step=1)
    """

    name = "none"

    @property
    def experiment(self) -> NoExperiment:
        """Takes every call and does nothing."""
        return NoExperiment()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Does nothing."""

    def skip(self, what: str) -> None:
        """Does nothing: that nothing is kept is what was asked for."""
