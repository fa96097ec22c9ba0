import os

import pytest

from boltax.checkpoint._folders import (
    clean_leftovers,
    commit_folder,
    committed_folders,
    remove_folder,
    temporary_folder,
)
from boltax.checkpoint._manifest import verify_folder


def put(directory, name, content="new"):
    final = directory / name
    (temporary_folder(final) / "file").write_text(content)
    commit_folder(final)
    return final


def contents(directory):
    return {
        name: (path / "file").read_text() for name, path in committed_folders(directory).items()
    }


def test_a_committed_folder_is_there_whole(tmp_path):
    (put(tmp_path, "1") / "file").unlink()
    put(tmp_path, "2")
    assert set(committed_folders(tmp_path)) == {"1", "2"}


def test_a_committed_folder_has_a_manifest(tmp_path):
    folder = put(tmp_path, "1")
    assert verify_folder(folder) == []
    (folder / "file").write_text("old")
    assert verify_folder(folder) == ["file has another checksum"]


def test_a_folder_of_the_same_name_makes_way(tmp_path):
    put(tmp_path, "1", "old")
    put(tmp_path, "1", "new")
    assert contents(tmp_path) == {"1": "new"}
    assert os.listdir(tmp_path) == ["1"]


def test_a_removed_folder_is_gone(tmp_path):
    remove_folder(put(tmp_path, "1"))
    assert not os.listdir(tmp_path)


def test_no_directory_holds_no_folders(tmp_path):
    assert committed_folders(tmp_path / "none") == {}


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, moment):
    put(tmp_path, "1", "old")
    calls = iter(range(100))

    def dying(function):
        def call(*args, **kwargs):
            if next(calls) == moment:
                raise KilledError("killed")
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", dying(type(tmp_path).replace))
        patch.setattr("boltax.checkpoint._folders.sync", dying(lambda folder: None))
        with pytest.raises(KilledError, match="killed"):
            put(tmp_path, "1", "new")

    before = contents(tmp_path)
    assert before in ({"1": "old"}, {"1": "new"})
    clean_leftovers(tmp_path)
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["1"]


def test_leftovers_are_ignored_and_cleaned(tmp_path):
    put(tmp_path, "1")
    temporary_folder(tmp_path / "2")
    (tmp_path / ".removed-3").mkdir()
    assert set(committed_folders(tmp_path)) == {"1"}
    clean_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["1"]
