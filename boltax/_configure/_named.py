"""What a configuration names: ``train.py:Classifier``, ``package.module:Net``.

A file is run as `import` would run it, and nothing in it is called.
"""

import importlib
from pathlib import Path
from typing import Any

from boltax._process._user_files import find_in_file
from boltax.errors import ConfigurationError, unknown_name


def find_named(text: Any, key: str, file: str | None = None) -> Any:
    """What a name stands for.

    Args:
        text: ``FILE.py:NAME``, ``package.module:NAME``, or a name in `file` alone.
        key: of the configuration, for messages.
        file: the user's file.

    Raises:
        ConfigurationError: when there is no such file or module.
        UnknownNameError: when it has nothing of that name.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"Received {key}: {text!r}; expected the name of a class or function. Write "
            f"{key}: train.py:NAME."
        )
    place, _, name = text.rpartition(":")
    if place.endswith(".py") or (not place and file is not None):
        return find_in_file(f"{place or file}:{name}")
    if not place or not all(part.isidentifier() for part in place.split(".")):
        raise ConfigurationError(
            f"Received {key}: {text!r}; expected a file and a name in it. Write {key}: "
            "train.py:NAME, or package.module:NAME."
        )
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise
        raise ConfigurationError(
            f"Received {key}: {text!r}, but there is no module {error.name}; expected one that can "
            f"be imported. Write {key}: train.py:{name}, or install it."
        ) from error
    if not hasattr(module, name):
        raise unknown_name(f"name in {place}", name, [n for n in vars(module) if n[0] != "_"])
    return getattr(module, name)


def file_of(text: str) -> str:
    """The file of ``FILE.py:NAME``; empty where there is none."""
    place = text.rpartition(":")[0]
    return place if place.endswith(".py") else ""


def anywhere(text: Any) -> Any:
    """A name that holds from every folder: files by their full paths."""
    file = file_of(text) if isinstance(text, str) else ""
    return f"{Path(file).resolve()}:{text.rpartition(':')[2]}" if file else text
