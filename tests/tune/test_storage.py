"""Where studies are kept, and what is said about a storage that cannot be reached."""

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from boltax.errors import ConfigurationError
from boltax.tune._storage import open_storage


@pytest.mark.parametrize("name", [None, "new/study.journal", "sqlite:///study.db"])
def test_a_study_is_found_again_in_its_storage(name):
    storage = open_storage(name)
    optuna.create_study(storage=storage, study_name="mine").add_trial(
        optuna.create_trial(value=1.0)
    )
    again = storage if name is None else open_storage(name)
    assert optuna.load_study(storage=again, study_name="mine").best_value == 1.0


def test_a_storage_of_optuna_is_taken_as_it_is():
    storage = optuna.storages.InMemoryStorage()
    assert open_storage(storage) is storage


def test_a_storage_that_cannot_be_reached_is_told_without_its_password():
    pytest.importorskip("sqlalchemy")
    with pytest.raises(ConfigurationError, match="cannot be opened") as caught:
        open_storage("postgresql://me:secret@localhost:1/study")
    assert "postgresql://me:***@localhost:1/study" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_without_a_password_is_told_as_it_is():
    with pytest.raises(ConfigurationError, match="'sqlite://me@host/study'"):
        open_storage("sqlite://me@host/study")


def test_a_driver_that_is_missing_is_named():
    with pytest.raises(ConfigurationError, match="Install the package of pg8000, or name another"):
        open_storage("postgresql+pg8000://me@localhost:1/study")


def test_workers_that_make_the_tables_of_a_database_together_all_open_it(monkeypatch):
    made = []

    class Busy(optuna.storages.RDBStorage):
        def __init__(self, url, **options):
            made.append(url)
            if len(made) < 3:  # what MySQL and SQLite say; PostgreSQL raises IntegrityError
                error = Exception("Table 'trials' already exists")
                raise OperationalError("CREATE TABLE", {}, error)
            super().__init__(url, **options)

    monkeypatch.setattr(optuna.storages, "RDBStorage", Busy)
    assert open_storage("sqlite:///study.db").get_all_studies() == []
    assert len(made) == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("nosuchdb://x", "cannot be opened"),
        ("sqlite:////no/such/folder/study.db", "cannot be opened"),
        ("study.db", "Write sqlite:///study.db, or study.journal"),
        ("", "expected None"),
        (3, "expected None"),
    ],
)
def test_what_is_no_storage_is_explained(name, message):
    with pytest.raises(ConfigurationError, match=message):
        open_storage(name)


def test_a_file_that_is_no_journal_is_explained(tmp_path):
    (tmp_path / "notes.journal").write_text("hello\nworld\n")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_storage(tmp_path / "notes.journal")
