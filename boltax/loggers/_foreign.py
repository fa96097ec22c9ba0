"""Any object with Lightning's logger protocol, as one of ours."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from boltax.loggers._base import Logger
from boltax.loggers._files import file_name, histogram_text
from boltax.loggers._images import as_images, figure_array, figure_png, grid, png
from boltax.loggers._mlflow import put_artifact
from boltax.loggers._values import Histogram, as_array, flatten, histogram, scalars

_LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")


class ForeignLogger(Logger):
    """Wraps an object that has ``log_metrics(metrics, step)``, such as a Lightning logger.

    ``log_hyperparams``, ``save`` and ``finalize`` are used where it has them. Images, figures,
    histograms and text go to its own ``log_image(key, images, step)`` and the like, to
    ``experiment.add_image`` and the like (TensorBoard), or to the run of an
    `mlflow.MlflowClient`; what it has no place for is left out, and a message says so once.

    Args:
        target: the object.

    Example:
        >>> class Mine:
        ...     def log_metrics(self, metrics, step):
        ...         print(step, metrics)
        >>> ForeignLogger(Mine()).log_metrics({"train/loss": 0.5}, step=10)
        10 {'train/loss': 0.5}
    """

    def __init__(self, target: Any) -> None:
        self.name: str = type(target).__name__
        self.target = target
        places = (getattr(target, name, None) for name in ("log_dir", "save_dir"))
        paths = (os.fspath(p) for p in places if isinstance(p, str | os.PathLike))
        self.log_dir: str | None = next(paths, None)
        self._is_finalized = False

    @property
    def experiment(self) -> Any:
        """The object's own experiment, if it has one."""
        return getattr(self.target, "experiment", None)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Passes the scalars on as Python numbers."""
        self._is_finalized = False
        if values := scalars(metrics):
            self.target.log_metrics(values, step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Passes the hyperparameters on, flattened."""
        self._is_finalized = False
        if (log := _method(self.target, "log_hyperparams")) is not None:
            log(flatten(params))

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Passes on a list of images ``[H, W, C]``, or a grid where one image is shown."""
        self._is_finalized = False
        batch = as_images(images)
        if (log := _method(self.target, "log_image")) is not None:
            log(key, list(batch), step)
        elif (add := _method(self.experiment, "add_image")) is not None:
            add(key, grid(batch), global_step=step, dataformats="HWC")
        elif not self._put_artifact("images", file_name(key, step, ".png"), png, grid(batch)):
            self.skip("images")

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Passes the figure on, or its pixels to an object that only takes images."""
        self._is_finalized = False
        if (log := _method(self.target, "log_figure")) is not None:
            log(key, figure, step)
        elif (add := _method(self.experiment, "add_figure")) is not None:
            still_open = {"close": False} if "close" in _parameters(add) else {}
            add(key, figure, global_step=step, **still_open)
        elif _method(self.target, "log_image") or _method(self.experiment, "add_image"):
            self.log_image(key, figure_array(figure), step)
        elif not self._put_artifact("figures", file_name(key, step, ".png"), figure_png, figure):
            self.skip("figures")

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Passes the values on."""
        self._is_finalized = False
        counted = histogram(values)
        if counted is None:
            return
        numbers = values.sample() if isinstance(values, Histogram) else as_array(values)
        if (log := _method(self.target, "log_histogram")) is not None:
            log(key, numbers, step)
        elif (add := _method(self.experiment, "add_histogram")) is not None:
            add(key, numbers, global_step=step)
        elif not self._put_artifact(
            "histograms",
            file_name(key, step, ".csv"),
            lambda h: histogram_text(h).encode(),
            counted,
        ):
            self.skip("histograms")

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Passes the text on, as a table of one cell where the object only takes tables."""
        self._is_finalized = False
        if (log := _method(self.target, "log_text")) is not None:
            if "columns" in _parameters(log):  # as Lightning's WandbLogger has it
                log(key, columns=["text"], data=[[text]], step=step)
            else:
                log(key, text, step)
        elif (add := _method(self.experiment, "add_text")) is not None:
            add(key, text, global_step=step)
        elif not self._put_artifact("text", file_name(key, step, ".txt"), str.encode, text):
            self.skip("text")

    def flush(self) -> None:
        """Calls the object's `save`, if it has one."""
        if (save := _method(self.target, "save")) is not None:
            save()

    def finalize(self, status: str = "success") -> None:
        """Calls the object's `finalize`, if it has one, once until the next write.

        Loggers of Lightning know no ``"interrupted"``: they get what Lightning itself tells them of
        such a run, which is ``"failed"``; its MLflow logger gets MLflow's own word for it.
        """
        if self._is_finalized:
            return
        self._is_finalized = True
        if (finalize := _method(self.target, "finalize")) is not None:
            finalize(_status_for(self.target, status))

    def _put_artifact(
        self, folder: str, name: str, encode: Callable[[Any], bytes], value: Any
    ) -> bool:
        """Writes a file where the experiment is an MLflow client; whether it is."""
        run_id = getattr(self.target, "run_id", None)
        if not isinstance(run_id, str) or _method(self.experiment, "log_artifact") is None:
            return False
        put_artifact(self.experiment, run_id, f"{folder}/{name}", encode(value))
        return True


def _status_for(target: object, status: str) -> str:
    classes = type(target).__mro__
    is_lightning = any(c.__module__.split(".")[0] in _LIGHTNING for c in classes)
    if status != "interrupted" or not is_lightning:
        return status
    return "KILLED" if any(c.__name__ == "MLFlowLogger" for c in classes) else "failed"


def _method(owner: object, name: str) -> Callable[..., Any] | None:
    found = getattr(owner, name, None)
    return found if callable(found) else None


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return set()
