"""Finds what the user names on the command line: a class or function in a Python file."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from boltax.errors import ConfigurationError, unknown_name


def find_in_file(text: str) -> Any:
    """The object called NAME in ``FILE.py:NAME``; the file is run, as `import` would.

    Raises:
        ConfigurationError: when there is no such file, or nothing of that name in it.
    """
    file, separator, name = text.rpartition(":")
    path = Path(file)
    if not separator or not path.is_file():
        raise ConfigurationError(
            f"Received {text!r}; expected a Python file and a name in it. Write train.py:MyTrainer."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"Received {file!r}; expected a Python file, ending in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise unknown_name(f"name in {file}", name, [n for n in vars(module) if n[0] != "_"])
    return getattr(module, name)
