"""Finds what the user names on the command line: a class or function in a Python file."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from boltax.errors import ConfigurationError, unknown_name


def find_in_file(text: str) -> Any:
    """The object called NAME in ``FILE.py:NAME``; the file is run, as `import` would run it.

    Raises:
        ConfigurationError: when there is no such file, or nothing of that name in it.
    """
    file, separator, name = text.rpartition(":")
    path = Path(file)
    if not separator or not path.is_file():
        raise ConfigurationError(
            f"Received {text!r}; expected a Python file and a name in it. Write train.py:MyTrainer."
        )
    module = _module_of(path.resolve())
    if not hasattr(module, name):
        raise unknown_name(f"name in {file}", name, [n for n in vars(module) if n[0] != "_"])
    return getattr(module, name)


def _module_of(path: Path) -> Any:
    """The module of a file: the one that is imported already, or a new one."""
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    name = path.stem if known is None else f"{path.stem} of {path.parent}"  # shadows no package
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(
            f"Received the file {str(path)!r}; expected a Python file. Write train.py:MyTrainer."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module
