"""Finds what the user names on the command line: a class or function in a Python file.

The file is run, but a file that trains as soon as it is run is refused: who asks for a look at a
trainer does not want hours of work.
"""

import importlib.util
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from boltax._process._top_level import training_call
from boltax.errors import ConfigurationError, TrainingError, unknown_name

_LOADING: ContextVar[Path | None] = ContextVar("the file that a command loads", default=None)


def find_in_file(text: str) -> Any:
    """The object called NAME in ``FILE.py:NAME``; the file is run, as `import` would run it.

    Raises:
        ConfigurationError: when there is no such file, or nothing of that name in it; or when it
            would train as it is run, or ends the process.
        SyntaxError: when it is no Python.
    """
    file, separator, name = text.rpartition(":")
    path = Path(file)
    if not separator or not path.is_file():
        raise ConfigurationError(
            f"Received {text!r}; expected a Python file and a name in it. Write train.py:MyTrainer."
        )
    module = _module_of(path.resolve(), file)
    if not hasattr(module, name):
        raise unknown_name(f"name in {file}", name, [n for n in vars(module) if n[0] != "_"])
    return getattr(module, name)


def line_in_folder_of(file: str, error: BaseException) -> str:
    """``train.py:12``: the innermost line of an error in a file, or in another of its folder.

    Returns:
        Empty where the error came from elsewhere.
    """
    folder = Path(file).resolve().parent
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    for name, line in reversed(places):
        path, here = Path(name), Path.cwd()
        if path.is_relative_to(folder) and not _is_installed(path):
            return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
    return ""


def _is_installed(path: Path) -> bool:
    """Whether a file belongs to a package, as in an environment inside of a project's folder."""
    is_own = path.is_relative_to(Path(__file__).resolve().parents[1])
    return is_own or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def refuse_training() -> None:
    """Ends a training that begins while a command loads the file with the trainer.

    Raises:
        TrainingError: then, and at no other time.
    """
    if (path := _LOADING.get()) is not None:
        raise TrainingError(
            f"Received a training that begins as {path.name} is loaded; expected a file that can "
            f"be loaded without training. {_GUARD}"
        )


_GUARD = (
    'Write `if __name__ == "__main__":` above the lines that train, and leave functions and '
    "classes outside of it."
)


def _module_of(path: Path, shown: str) -> Any:
    """The module of a file: the one that is imported already, or a new one."""
    names = path.stem, f"{path.stem} of {path.parent}"  # the second shadows no package
    for name in names:
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(path):
            return known
    _check_source(path, shown)
    name = names[names[0] in sys.modules]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(
            f"Received the file {shown!r}; expected a Python file. Write train.py:MyTrainer."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        with _loading(path):
            spec.loader.exec_module(module)
    except SystemExit as error:
        raise ConfigurationError(
            f"Received {shown}, which ends the process as it is loaded (status {error.code!r}); "
            f"expected a file that can be loaded. {_GUARD}"
        ) from error
    finally:
        if sys.exc_info()[0] is not None:  # half a module is none
            sys.modules.pop(name, None)
    return module


def _check_source(path: Path, shown: str) -> None:
    call = training_call(path.read_bytes(), str(path))
    if call is not None:
        line, text = call
        raise ConfigurationError(
            f"Received {shown}, which trains as it is loaded: line {line}, {text}. Expected a file "
            f"that can be loaded without training. {_GUARD}"
        )


@contextmanager
def _loading(path: Path) -> Generator[None]:
    """Within it the file sees arguments of no command line, and nothing trains."""
    arguments, token = sys.argv, _LOADING.set(path)
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments
        _LOADING.reset(token)
