"""Loggers by name: the one place that knows all of them."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boltax._base._optional import import_optional
from boltax.errors import ConfigurationError, unknown_name
from boltax.loggers._base import Logger, NoLogger
from boltax.loggers._csv import CsvLogger
from boltax.loggers._foreign import ForeignLogger
from boltax.loggers._group import LoggerGroup
from boltax.loggers._mlflow import MlflowLogger
from boltax.loggers._tensorboard import TensorBoardLogger
from boltax.loggers._wandb import WandbLogger


@dataclass(frozen=True)
class _Run:
    log_dir: str
    project: str | None
    name: str | None


_LOGGERS: dict[str, Callable[[_Run], Logger]] = {
    "TensorBoard": lambda run: TensorBoardLogger(run.log_dir),
    "csv": lambda run: CsvLogger(run.log_dir),
    "mlflow": lambda run: MlflowLogger(run.log_dir, run.project, run.name),
    "none": lambda _: NoLogger(),
    "wandb": lambda run: WandbLogger(run.log_dir, run.project, run.name),
}
_BY_LOWER = {name.lower(): make for name, make in _LOGGERS.items()}
_EXTRAS = {"mlflow": "the MLflow logger", "wandb": "the W&B logger"}


def create_loggers(
    logger_type: object,
    *,
    log_dir: str | os.PathLike[str],
    config: Mapping[str, Any],
    project_name: str | None = None,
    run_name: str | None = None,
) -> LoggerGroup:
    """Makes the loggers of a run. Nothing is written before the first record.

    Args:
        logger_type: ``"TensorBoard"``, ``"wandb"``, ``"csv"``, ``"mlflow"`` or ``"none"`` in any
            case; a `Logger`; any object with Lightning's logger protocol; a list of these; None
            for no logger.
        log_dir: the folder of the run.
        config: hyperparameters, nested or not, that are logged before the first record.
        project_name: the project that W&B and MLflow file the run under.
        run_name: what W&B and MLflow call the run.

    Returns:
        The loggers as one, which no failure of a member gets through.

    Raises:
        UnknownNameError: when there is no logger of that name.
        ConfigurationError: when `logger_type` is something else.
        MissingExtraError: when the logger's package is not installed.

    Example:
        >>> logger = create_loggers("csv", log_dir="runs/example", config={"lr": 0.1})
        >>> logger.log_metrics({"train/loss": 0.5}, step=10)
        >>> logger.finalize()
    """
    run = _Run(os.fspath(log_dir), project_name, run_name)
    wanted = logger_type if isinstance(logger_type, list | tuple) else [logger_type]
    return LoggerGroup([_create(one, run) for one in wanted], hyperparams=config)


def as_logger_group(logger: object) -> LoggerGroup:
    """The loggers that a user made without `create_loggers`, as one.

    Args:
        logger: a `Logger`, an object with Lightning's logger protocol, a list of these, or None.

    Returns:
        The group; one that is already a group as it is.

    Raises:
        ConfigurationError: when it is something else.
    """
    if isinstance(logger, LoggerGroup):
        return logger
    members = logger if isinstance(logger, list | tuple) else [logger]
    return LoggerGroup([_adapt(member) for member in members])


def _create(wanted: object, run: _Run) -> Logger:
    return _named(wanted, run) if isinstance(wanted, str) else _adapt(wanted)


def _adapt(wanted: Any) -> Logger:
    if wanted is None:
        return NoLogger()
    if isinstance(wanted, Logger):
        return wanted
    if not isinstance(wanted, type) and callable(getattr(wanted, "log_metrics", None)):
        return ForeignLogger(wanted)
    kind = f"the class {wanted.__name__}" if isinstance(wanted, type) else type(wanted).__name__
    raise ConfigurationError(
        f"Received {kind} as a logger; expected a name ({', '.join(_LOGGERS)}), an object with "
        'log_metrics(metrics, step), or a list of these. Write logger_type="TensorBoard", or make '
        "the logger and give the object."
    )


def _named(name: str, run: _Run) -> Logger:
    make = _BY_LOWER.get(name.lower())
    if make is None:
        raise unknown_name("logger", name, _LOGGERS)
    extra = name.lower()
    if extra in _EXTRAS and importlib.util.find_spec(extra) is None:  # found out before the run
        import_optional(extra, extra=extra, purpose=_EXTRAS[extra])
    return make(run)
