"""The MLflow logger: a SQLite store in the folder of the run, or the server that you name."""

import logging
import os
import pathlib
import re
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from boltax._base._optional import import_optional
from boltax.loggers._base import Logger
from boltax.loggers._files import file_name, histogram_text, recall, remember
from boltax.loggers._images import as_images, figure_png, grid, png
from boltax.loggers._values import flatten, histogram, scalars

_ID_FILE = "mlflow_run_id.txt"
_log = logging.getLogger("boltax")
_STATUS = {"success": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 6000  # limits of MLflow's requests


class MlflowLogger(Logger):
    """Writes to an MLflow run; images, figures, histograms and text are its artifacts.

    The store is ``mlflow.db`` in the folder of the run, unless ``MLFLOW_TRACKING_URI`` or
    `tracking_uri` names another. Making a store takes MLflow some seconds. Usage statistics are
    not sent, unless ``MLFLOW_DISABLE_TELEMETRY`` says so. A resumed run goes on in the MLflow run
    whose id is in ``mlflow_run_id.txt``.

    Args:
        log_dir: the folder of the run.
        project: the experiment that the run belongs to.
        run_name: the name of the run, or None for one that MLflow thinks of.
        tracking_uri: a store or server for this logger alone.
    """

    name = "mlflow"

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        project: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        self._folder = os.fspath(log_dir)
        self.log_dir = self._folder
        self._project = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "boltax"
        self._run_name = run_name
        self._uri = tracking_uri
        self._client: Any = None
        self._run_id: str | None = None
        self._is_open = False
        self._resumed_at: int | None = None
        self._known: set[tuple[str, int, str]] = set()  # recorded before a resume, for later steps
        self._artifacts: str | None = None  # where the files of our own store are

    @property
    def experiment(self) -> Any:
        """The `mlflow.MlflowClient`; asking for it starts the run, whose id is `run_id`."""
        return self._open()[0]

    @property
    def run_id(self) -> str:
        """The id of the MLflow run; asking for it starts the run."""
        return self._open()[1]

    def resume(self, step: int) -> None:
        """Goes on with the run; MLflow takes nothing back, so what it has is not written again."""
        self._run_id = self._run_id or recall(self._folder, _ID_FILE)
        self._resumed_at = step

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes the scalars."""
        values = {_name(n): float(v) for n, v in scalars(metrics).items()}
        if not values:
            return
        client, run_id = self._open()
        metric = import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        at = 0 if step is None else int(step)
        new = {n: v for n, v in values.items() if (n, at, repr(v)) not in self._known}
        entities = [metric(n, v, now, at) for n, v in new.items()]
        for part in _parts(entities, _MOST_METRICS):
            client.log_batch(run_id, metrics=part)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Writes the run's parameters, which MLflow does not let change afterwards."""
        client, run_id = self._open()
        param = import_module("mlflow.entities").Param
        entities = [param(_name(n), str(v)[:_LONGEST]) for n, v in flatten(params).items()]
        for part in _parts(entities, _MOST_PARAMS):
            client.log_batch(run_id, params=part)

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Writes a PNG artifact; a batch becomes a grid."""
        self._put("images", file_name(key, step, ".png"), png(grid(as_images(images))))

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Writes a PNG artifact."""
        self._put("figures", file_name(key, step, ".png"), figure_png(figure))

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Writes a CSV artifact with the limits and the count of each bin."""
        if (counted := histogram(values)) is not None:
            data = histogram_text(counted).encode()
            self._put("histograms", file_name(key, step, ".csv"), data)

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Writes a text artifact."""
        self._put("text", file_name(key, step, ".txt"), text.encode())

    def finalize(self, status: str = "success") -> None:
        """Ends the run; the next write opens it again."""
        if self._is_open:
            self._is_open = False
            self._client.set_terminated(self._run_id, _STATUS.get(status, "KILLED"))

    def _put(self, folder: str, name: str, data: bytes) -> None:
        put_artifact(*self._open(), f"{folder}/{name}", data)

    def _open(self) -> tuple[Any, str]:
        if self._client is None:
            self._client = self._connect()
        if self._resumed_at is not None and self._run_id is not None:
            self._look_back(self._resumed_at, self._run_id)
        self._resumed_at = None
        if self._run_id is None:
            run = self._client.create_run(self._experiment_id(), run_name=self._run_name)
            self._run_id = str(run.info.run_id)
            remember(self._folder, _ID_FILE, self._run_id)
        elif not self._is_open:
            self._client.update_run(self._run_id, status="RUNNING")
        self._is_open = True
        return self._client, self._run_id

    def _look_back(self, step: int, run_id: str) -> None:
        """Reads what the run has from a step on; a run that the store does not know is given up."""
        try:
            names = list(self._client.get_run(run_id).data.metrics)
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            _log.warning("MLflow has no run %s to go on with: a new one is started.", run_id)
            self._run_id = None
            return
        self._known = {
            (name, metric.step, repr(metric.value))
            for name in names
            for metric in self._client.get_metric_history(run_id, name)
            if metric.step >= step
        }

    def _connect(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.makedirs(self._folder, exist_ok=True)
            uri = "sqlite:///" + os.path.abspath(os.path.join(self._folder, "mlflow.db"))
            self._artifacts = pathlib.Path(self._folder, "mlflow_artifacts").absolute().as_uri()
        with _quiet():
            mlflow = import_optional("mlflow", extra="mlflow", purpose="the MLflow logger")
            return mlflow.MlflowClient(tracking_uri=uri)

    def _experiment_id(self) -> str:
        with _quiet():
            known = self._client.get_experiment_by_name(self._project)
            if known is not None:
                return str(known.experiment_id)
            place = self._artifacts
            return str(self._client.create_experiment(self._project, artifact_location=place))


def put_artifact(client: Any, run_id: str, path: str, data: bytes) -> None:
    """Makes a file of an MLflow run.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: the run.
        path: the artifact's path, with forward slashes.
        data: what is in it.
    """
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch, name)
        file.write_bytes(data)
        client.log_artifact(run_id, str(file), folder or None)


def _name(name: str) -> str:
    """A name in the characters that MLflow allows."""
    return re.sub(r"[^\w.\- :/]", "_", name).strip("/")


def _parts(entities: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entities), most):
        yield entities[start : start + most]


@contextmanager
def _quiet() -> Generator[None]:
    """Holds back what MLflow says while it makes a store: deprecations of its own, table names."""
    log = logging.getLogger("mlflow.store.db.utils")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
