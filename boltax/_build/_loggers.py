"""A run's folder, and the loggers that write to it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from boltax._build._construction import Construction
from boltax.checkpoint._plain import plain
from boltax.checkpoint._rundir import create_run_directory, open_run_directory
from boltax.loggers._create import as_logger_group, create_loggers
from boltax.loggers._group import LoggerGroup
from boltax.parallel._group import group


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
    processes = group()
    folder = processes.of_first(
        "the run's folder", partial(_folder, logger_params, config, is_new=construction.is_new)
    )
    if not processes.is_first:
        return folder, create_loggers("none", log_dir=folder, config={})
    loggers = create_loggers(
        logger_params.get("logger_type") or "TensorBoard",
        log_dir=folder,
        config=plain(config),
        project_name=logger_params.get("project_name"),
        run_name=logger_params.get("logger_name"),
    )
    return folder, loggers


def _folder(logger_params: Mapping[str, Any], config: Mapping[str, Any], *, is_new: bool) -> str:
    if logger_params.get("log_dir"):
        return str(open_run_directory(logger_params["log_dir"], writable=is_new).path)
    base, name = logger_params.get("base_log_dir") or "runs", logger_params.get("logger_name")
    return str(create_run_directory(base, config["model_class"], name).path)


def complete_logger(
    logger: Any, log_dir: Any, config: Mapping[str, Any]
) -> tuple[str, LoggerGroup]:
    """The folder, and a logger of the user's as one that cannot end the run; it learns of the run.

    Args:
        logger: what `init_logger` has set.
        log_dir: likewise; the logger's own folder where that is empty.
        config: of the run.
    """
    one = logger if isinstance(logger, LoggerGroup) else as_logger_group(logger)
    processes = group()
    folder = processes.of_first("the run's folder", lambda: str(log_dir or one.log_dir))
    if not processes.is_first:
        return folder, create_loggers("none", log_dir=folder, config={})
    if one is not logger:
        one.log_hyperparams(plain(config))
    return folder, one
