"""A run without files: its folder is a temporary one, which goes with the trainer."""

import shutil
import tempfile
import weakref
from typing import Any

from boltax.errors import ConfigurationError
from boltax.parallel._group import group
from boltax.parallel._processes import launched


def temporary_folder_for(owner: object) -> str:
    """A folder for a run that is to leave nothing; removed when its owner goes, or Python ends.

    Args:
        owner: whoever needs it.
    """
    folder = tempfile.mkdtemp(prefix="boltax-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def params_without_files(owner: object) -> dict[str, Any]:
    """The parameters of the logger that stand for ``logger_params=False``.

    Raises:
        ConfigurationError: with several processes, which write into one folder.
    """
    # those of a launcher count that are not joined yet
    if (number := max(group().count, launched()[1])) > 1:
        raise ConfigurationError(
            f"Received logger_params=False in one of {number} processes; expected a "
            "folder that all of them see, where checkpoints are written together. Write "
            'logger_params={"base_log_dir": "runs", "logger_type": "none"}.'
        )
    return {"logger_type": "none", "log_dir": temporary_folder_for(owner)}
