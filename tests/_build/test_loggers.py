"""The folder of a run and its loggers, by the way of construction."""

from pathlib import Path

import pytest

from boltax._build._construction import LOADED, NEW
from boltax._build._loggers import complete_logger, open_loggers
from boltax.errors import RunDirectoryError
from boltax.loggers import Logger

CONFIG = {"model_class": "Mlp", "seed": 3}


class Memory(Logger):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def log_hyperparams(self, params):
        self.told.append(dict(params))

    def log_metrics(self, metrics, step):
        self.told.append(dict(metrics))


def test_a_new_run_has_a_folder_under_its_models_name(tmp_path):
    folder, logger = open_loggers({"base_log_dir": str(tmp_path)}, CONFIG, NEW)
    assert Path(folder) == tmp_path / "Mlp" / "version_0"
    assert logger.log_dir == folder
    assert Path(open_loggers({"base_log_dir": str(tmp_path)}, CONFIG, NEW)[0]).name == "version_1"


def test_a_loaded_run_has_the_folder_that_there_is(tmp_path):
    params = {"log_dir": str(tmp_path / "run"), "logger_type": "none"}
    with pytest.raises(RunDirectoryError):
        open_loggers(params, CONFIG, LOADED)
    (tmp_path / "run").mkdir()
    assert open_loggers(params, CONFIG, LOADED)[0] == str(tmp_path / "run")


def test_a_logger_of_the_users_learns_of_the_run_once(tmp_path):
    memory = Memory()
    folder, group = complete_logger(memory, str(tmp_path), CONFIG)
    assert folder == str(tmp_path)
    group.log_metrics({"loss": 1.0}, 1)
    assert memory.told[0]["seed"] == 3
    assert complete_logger(group, "", CONFIG)[1] is group
