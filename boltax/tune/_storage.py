"""Where a study is kept: in memory, in a journal file or in a database, all of them Optuna's."""

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from boltax.errors import ConfigurationError
from boltax.tune._space import optuna_module

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Storage: TypeAlias = "str | os.PathLike[str] | BaseStorage | None"
FORMS = (
    "None (in memory), the path of a journal file (study.journal), the URL of a database "
    "(sqlite:///study.db, postgresql://..., mysql://...), or an Optuna storage"
)
DATABASES = (".db", ".sqlite", ".sqlite3")
TRIES = 10
"""How often to open a database in which others make the tables at the same moment."""


def open_storage(storage: Storage) -> "BaseStorage":
    """The storage that is named, opened.

    Args:
        storage: None (in memory), the path of a journal file, the URL of a database, or a storage
            of Optuna's.

    Returns:
        What ``optuna.load_study(study_name="study", storage=...)`` takes, as do Optuna's plots and
        dashboard.

    Raises:
        ConfigurationError: when it cannot be reached, read or written.

    Example:
        >>> import optuna
        >>> storage = open_storage("study.journal")
        >>> optuna.create_study(storage=storage, study_name="study").study_name
        'study'
    """
    storages = optuna_module().storages
    if storage is None:
        return storages.InMemoryStorage()
    if isinstance(storage, storages.BaseStorage):
        return cast("BaseStorage", storage)
    if not isinstance(storage, str | os.PathLike) or not str(storage):
        raise ConfigurationError(
            f"Received storage={storage!r} ({type(storage).__name__}); expected {FORMS}."
        )
    text = os.fspath(storage)
    try:
        return _database(text) if "://" in text else _journal(Path(text))
    except ConfigurationError:
        raise
    except Exception as error:  # each database has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0].replace(text, _shown(text))
        missing = getattr(error.__cause__, "name", None) if isinstance(error, ImportError) else None
        remedy = f" Install the package of {missing}, or name another driver." if missing else ""
        raise ConfigurationError(
            f"Received storage {_shown(text)!r}, which cannot be opened ({type(error).__name__}: "
            f"{reason}); expected {FORMS}, which this machine can reach and write.{remedy}"
        ) from error


def _database(url: str) -> Any:
    from sqlalchemy import NullPool, exc  # Optuna brings it

    # A connection to a file costs little, and one that waits in a pool is never closed.
    is_file = url.startswith("sqlite:///") and not url.endswith(":memory:")
    options = {"poolclass": NullPool} if is_file else {}
    tries = 0
    while True:
        try:
            return optuna_module().storages.RDBStorage(url, engine_kwargs=options)
        except exc.DBAPIError as error:
            # Workers that start together in an empty database all make its tables.
            is_made = isinstance(error, exc.IntegrityError) or "already exists" in str(error)
            tries += 1
            if not is_made or tries == TRIES:
                raise
            time.sleep(random.uniform(0.1, 0.5))


def _journal(path: Path) -> Any:
    storages = optuna_module().storages
    if path.suffix in DATABASES:
        raise ConfigurationError(
            f"Received storage {str(path)!r}, which looks like a database; expected its URL. Write "
            f"sqlite:///{path}, or {path.with_suffix('.journal')} for a journal file."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return storages.JournalStorage(storages.journal.JournalFileBackend(str(path)))


def _shown(text: str) -> str:
    """A URL without its password."""
    scheme, separator, rest = text.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    if not separator or not at or not colon:
        return text
    return f"{scheme}://{user}:***@{host}"
