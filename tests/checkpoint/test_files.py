import json
import os
import resource

import pytest

from boltax.checkpoint import _files
from boltax.checkpoint._files import MAX_JSON_BYTES, read_json, write_json, write_text
from boltax.errors import CheckpointError, RunDirectoryError


def test_what_is_written_is_read(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"ä": "text\n"}, "lone": "\udcff"}
    write_json(tmp_path / "new" / "folder" / "x.json", value)
    assert read_json(tmp_path / "new" / "folder" / "x.json") == value


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "x.txt", "old")
    write_text(tmp_path / "x.txt", "new")
    assert (tmp_path / "x.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_file_keeps_the_permissions_of_the_process(tmp_path):
    write_text(tmp_path / "x.txt", "")
    (tmp_path / "y.txt").touch()
    assert (tmp_path / "x.txt").stat().st_mode == (tmp_path / "y.txt").stat().st_mode


def test_a_full_disk_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x.txt", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunDirectoryError, match="Free some space"):
            write_text(tmp_path / "x.txt", "n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "x.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match=r"file/x\.json"):
        write_json(tmp_path / "file" / "x.json", {})


def test_a_value_that_is_not_json_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not os.listdir(tmp_path)


def test_what_would_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    deep = value = []
    for _ in range(150):
        deep.append(deep := [])
    with pytest.raises(CheckpointError, match="expected at most 100 levels"):
        write_json(tmp_path / "x.json", value)
    monkeypatch.setattr(_files, "MAX_JSON_BYTES", 100)
    with pytest.raises(CheckpointError, match="expected at most 100 bytes"):
        write_json(tmp_path / "x.json", ["ä" * 50])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1, "a": 2}', "a key occurs twice"),
        ("[NaN]", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("1" * 5000, "digits"),
        ("[" * 200 + "]" * 200, "nested more than 100 levels"),
        ("[" * 100_000, "nested more than 100 levels"),
        ('{"a":' * 100_000, "nested more than 100 levels"),
        ("\x00", "Expecting value"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(caught.value)


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(CheckpointError, match="UnicodeDecodeError"):
        read_json(tmp_path / "x.json")


def test_what_is_no_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(CheckpointError, match="it is not a file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(CheckpointError, match="it is not a file"):
        read_json(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_a_link_is_an_error_and_not_followed(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    with pytest.raises(CheckpointError, match="it is a symbolic link, which may lead out of"):
        read_json(tmp_path / "link.json")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="67,108,865 bytes"):
        read_json(tmp_path / "x.json")


def test_the_deepest_json_that_is_read(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100 + "]" * 100)
    assert json.dumps(read_json(tmp_path / "x.json")) == "[" * 100 + "]" * 100
