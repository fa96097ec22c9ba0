import json
import os

import pytest

from boltax.checkpoint import _manifest
from boltax.checkpoint._manifest import verify_folder, write_manifest


@pytest.fixture
def folder(tmp_path):
    """A folder as it is when it was just committed."""
    folder = tmp_path / "300"
    (folder / "arrays" / "d").mkdir(parents=True)
    (folder / "structure.json").write_text('{"w": "float32[3]"}')
    (folder / "empty").touch()
    (folder / "arrays" / "d" / "ä").write_bytes(bytes(range(256)) * 10)
    write_manifest(folder)
    return folder


def test_a_folder_as_it_was_saved_is_good(folder):
    assert verify_folder(folder) == []
    moved = folder.rename(folder.parent / "elsewhere")
    assert verify_folder(moved) == []


def test_the_manifest_names_every_file_with_its_size(folder):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {name: entry["size"] for name, entry in files.items()} == {
        "arrays/d/ä": 2560,
        "empty": 0,
        "structure.json": 19,
    }


def test_every_fault_is_named(folder):
    (folder / "empty").unlink()
    (folder / "arrays" / "d" / "ä").write_bytes(bytes(2560))
    (folder / "structure.json").write_text("{}")
    (folder / "arrays" / "more").touch()
    assert verify_folder(folder) == [
        "arrays/d/ä has another checksum",
        "arrays/more is not part of the checkpoint",
        "empty is missing",
        "structure.json has 2 bytes instead of 19",
    ]


def test_every_flipped_bit_of_the_manifest_is_damage(folder):
    path = folder / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0, 1, 5):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            assert verify_folder(folder), f"bit {bit} of byte {place}"
    path.write_bytes(content)
    assert verify_folder(folder) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", '{"files": 3}', '{"files": {"a": 3}}', '{"files": {}}']
)
def test_what_is_no_manifest_is_damage(folder, text):
    (folder / "manifest.json").write_text(text)
    assert verify_folder(folder) == ["manifest.json is damaged"]


def test_a_missing_manifest_or_folder_is_damage(folder):
    (folder / "manifest.json").unlink()
    assert verify_folder(folder) == ["manifest.json is missing"]
    assert "No such file" in verify_folder(folder / "none")[0]


def test_links_are_damage_and_not_followed(folder, tmp_path):
    (tmp_path / "copy").write_bytes((folder / "structure.json").read_bytes())
    (folder / "structure.json").unlink()
    (folder / "structure.json").symlink_to(tmp_path / "copy")
    (folder / "more").symlink_to(tmp_path)
    (folder / "arrays").rename(tmp_path / "arrays")
    (folder / "arrays").symlink_to(tmp_path / "arrays")
    assert verify_folder(folder) == [
        "arrays is a symbolic link",
        "arrays/d/ä is missing",
        "more is a symbolic link",
        "structure.json is a symbolic link",
    ]
    (tmp_path / "link").symlink_to(folder)
    assert verify_folder(tmp_path / "link") == ["link is a symbolic link"]


def test_pipes_are_damage_and_nobody_waits_for_them(folder):
    (folder / "empty").unlink()
    os.mkfifo(folder / "empty")
    os.mkfifo(folder / "more")
    assert verify_folder(folder) == ["empty is not a file", "more is not part of the checkpoint"]


def test_a_name_in_the_manifest_that_leads_out_is_not_opened(folder):
    (folder.parent / "secret").touch()
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for name in ("../secret", str(folder.parent / "secret")):
        (folder / "manifest.json").write_text(_manifest._text(files | {name: files["empty"]}))
        assert verify_folder(folder) == [f"{name} is missing"]


def test_what_a_file_browser_leaves_is_no_damage(folder):
    (folder / "arrays" / ".DS_Store").touch()
    assert verify_folder(folder) == []
