"""A run's folder, and the loggers that write to it."""

from collections.abc import Mapping
from typing import Any

from boltax._build._construction import Construction
from boltax.checkpoint._plain import plain
from boltax.checkpoint._rundir import create_run_directory, open_run_directory
from boltax.loggers._create import as_logger_group, create_loggers
from boltax.loggers._group import LoggerGroup


def open_loggers(
    logger_params: Mapping[str, Any], config: Mapping[str, Any], construction: Construction
) -> tuple[str, LoggerGroup]:
    """Makes or opens the run's folder, and the loggers that write to it.

    Args:
        logger_params: as given to the trainer.
        config: of the run, for the loggers; its ``model_class`` names the folder.
        construction: whether the run begins here.
    """
    if construction.folder is not None:
        return construction.folder, create_loggers("none", log_dir=construction.folder, config={})
    if logger_params.get("log_dir"):
        directory = open_run_directory(logger_params["log_dir"], writable=construction.is_new)
    else:
        directory = create_run_directory(
            logger_params.get("base_log_dir") or "runs",
            config["model_class"],
            logger_params.get("logger_name"),
        )
    loggers = create_loggers(
        logger_params.get("logger_type") or "TensorBoard",
        log_dir=str(directory.path),
        config=plain(config),
        project_name=logger_params.get("project_name"),
        run_name=logger_params.get("logger_name"),
    )
    return str(directory.path), loggers


def complete_logger(
    logger: Any, log_dir: Any, config: Mapping[str, Any]
) -> tuple[str, LoggerGroup]:
    """The folder, and a logger of the user's as one that cannot end the run; it learns of the run.

    Args:
        logger: what `init_logger` has set.
        log_dir: likewise; the logger's own folder where that is empty.
        config: of the run.
    """
    group = logger if isinstance(logger, LoggerGroup) else as_logger_group(logger)
    if group is not logger:
        group.log_hyperparams(plain(config))
    return str(log_dir or group.log_dir), group
