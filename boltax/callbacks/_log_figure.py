"""Logs an image or figure that a function makes of the run: pictures without an own class."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from boltax._base._whole import is_whole
from boltax.callbacks._base import Callback, Log, View
from boltax.errors import ConfigurationError, unknown_name

WHEN = ("training", "validation", "test")


class LogFigure(Callback):
    """Logs what a function draws, after each training epoch, each validation, or the test.

    Args:
        key: the name under which it is logged.
        function: takes the `View` and returns a matplotlib figure, an image ``[height, width,
            channels]`` or ``[height, width]``, a batch of images ``[n, height, width, channels]``
            (uint8, or floats from 0 to 1), or None to log nothing.
        every_n_epochs: draw only in epochs that are a multiple of this; a test is always drawn.
        hook: ``"training"``, ``"validation"`` or ``"test"``.

    Raises:
        ConfigurationError: when an argument makes no sense, or in the run when the function returns
            something that is no picture.

    Example:
        >>> images = np.zeros((4, 8, 8, 1), np.float32)
        >>> LogFigure("reconstructions", lambda view: view.predict(images), every_n_epochs=5)
        LogFigure('reconstructions', every_n_epochs=5, hook='validation')
    """

    def __init__(
        self,
        key: str,
        function: Callable[[View], Any],
        every_n_epochs: int = 1,
        hook: str = "validation",
    ) -> None:
        if hook not in WHEN:
            raise unknown_name("hook of LogFigure", hook, WHEN)
        if not callable(function):
            raise ConfigurationError(
                f"Received LogFigure(function={function!r}) of type {type(function).__name__}; "
                f"expected a function of the view. Write LogFigure({key!r}, lambda view: "
                "view.predict(images))."
            )
        if not is_whole(every_n_epochs, 1):
            raise ConfigurationError(
                f"Received LogFigure(every_n_epochs={every_n_epochs!r}); expected a whole number "
                "of at least 1. Write every_n_epochs=5."
            )
        self.key = key
        self.function = function
        self.every_n_epochs = every_n_epochs
        self.hook = hook

    def __repr__(self) -> str:
        return f"LogFigure({self.key!r}, every_n_epochs={self.every_n_epochs}, hook={self.hook!r})"

    def on_training_epoch_end(self, view: View) -> Log | None:
        """Draws after an epoch of training."""
        return self._draw(view) if self.hook == "training" else None

    def on_validation_epoch_end(self, view: View) -> Log | None:
        """Draws after a validation."""
        return self._draw(view) if self.hook == "validation" else None

    def on_test_end(self, view: View) -> Log | None:
        """Draws after the test."""
        return self._draw(view) if self.hook == "test" else None

    def _draw(self, view: View) -> Log | None:
        if self.hook != "test" and view.epoch % self.every_n_epochs != 0:
            return None
        drawn = self.function(view)
        if drawn is None:
            return None
        if hasattr(drawn, "savefig"):
            _release(drawn)
            return Log(figures={self.key: drawn})
        images = np.asarray(jax.device_get(drawn))
        if images.ndim not in (2, 3, 4) or images.dtype.kind not in "buif":
            raise ConfigurationError(
                f"Received {type(drawn).__name__} ({images.dtype} of shape {images.shape}) from "
                f"the function of LogFigure({self.key!r}); expected a matplotlib figure, or images "
                "[height, width], [height, width, channels] or [n, height, width, channels]. Write "
                "return plt.gcf(), or return the array."
            )
        return Log(images={self.key: images})


def _release(figure: Any) -> None:
    """Lets pyplot forget the figure, which can still be drawn; pyplot would keep it for ever."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
