"""Whether the processes of a job run the same program with the same settings."""

import hashlib
import inspect
import platform
from collections.abc import Mapping
from typing import Any

import jax

from boltax.checkpoint._plain import plain
from boltax.parallel._group import Group

_MAY_DIFFER = ("logger_params", "enable_progress_bar")


def check_alike(processes: Group, trainer_class: type, config: Mapping[str, Any]) -> None:
    """Refuses processes that would not train the same.

    Args:
        processes: of the job.
        trainer_class: the trainer's class.
        config: its settings.

    Raises:
        ProcessError: in each of them, naming what differs.
    """
    if processes.is_alone:
        return
    from boltax import __version__

    settings = {n: v for n, v in plain(dict(config)).items() if n not in _MAY_DIFFER}
    processes.check_same(
        f"the construction of {trainer_class.__name__}",
        {
            "version of Python": ".".join(platform.python_version_tuple()[:2]),
            "version of jax": jax.__version__,
            "version of boltax": __version__,
            "trainer class": trainer_class.__qualname__,
            "code of the trainer": _digest(trainer_class),
            "number of devices": jax.local_device_count(),
            **{f"setting {name}": value for name, value in settings.items()},
        },
    )


def _digest(trainer_class: type) -> str | None:
    try:
        text = inspect.getsource(trainer_class)
    except (OSError, TypeError):  # typed by hand
        return None
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
