"""The manifest of a checkpoint: size and checksum of each file, and whether they are still so.

    {"files": {"structure.json": {"size": 211, "sha256": "9f0c..."}, ...}, "sha256": "1b7e..."}

The last line is the checksum of the lines above, so that damage to the manifest shows as well.
Names are compared with those that are found in the folder and never opened as they stand, so none
leads out of it, and no link is followed.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boltax.checkpoint._files import open_file, read_json, write_text
from boltax.errors import CheckpointError

MANIFEST = "manifest.json"

# Put into any folder by those who look at it; neither boltax nor orbax asks for such names.
_OF_FILE_BROWSERS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def write_manifest(folder: Path) -> None:
    """Writes the manifest of all that is in a folder, durably; the folder is complete before.

    Raises:
        OSError: when a file cannot be read.
        RunDirectoryError: when the manifest cannot be written.
    """
    files = {
        name: {"size": entry.stat().st_size, "sha256": _digest(Path(entry.path))}
        for name, entry in sorted(_entries(folder))
    }
    write_text(folder / MANIFEST, _text(files))


def verify_folder(folder: Path) -> list[str]:
    """Compares a folder with its manifest. No file outside it is read.

    Args:
        folder: the folder of one checkpoint.

    Returns:
        What is wrong, ``"structure.json has another checksum"``, one text for each file that is
        missing, changed, a link, or does not belong there; nothing for a good folder.
    """
    try:
        if folder.is_symlink():
            return [f"{folder.name} is a symbolic link"]
        found = {name: entry for name, entry in _entries(folder) if name != MANIFEST}
        listed = _read(folder)
    except CheckpointError as error:
        return [str(error)]
    except OSError as error:
        return [f"{folder.name} cannot be read: {error}"]
    faults = {name: _fault(found.get(name), listed.get(name)) for name in {*listed, *found}}
    return sorted(f"{name} {fault}" for name, fault in faults.items() if fault)


def _fault(entry: "os.DirEntry[str] | None", expected: Any) -> str | None:
    if entry is None:
        return "is missing"
    try:
        if entry.is_symlink():
            return "is a symbolic link"
        if expected is None:
            is_harmless = entry.name in _OF_FILE_BROWSERS
            return None if is_harmless else "is not part of the checkpoint"
        if not entry.is_file(follow_symlinks=False):
            return "is not a file"
        if (size := entry.stat(follow_symlinks=False).st_size) != expected["size"]:
            return f"has {size:,} bytes instead of {expected['size']:,}"
        same = _digest(Path(entry.path)) == expected["sha256"]
    except OSError as error:
        return f"cannot be read: {error}"
    return None if same else "has another checksum"


def _entries(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """All that is in a folder and its subfolders but the subfolders themselves, by path."""
    folders = [("", os.fspath(folder))]
    while folders:
        prefix, parent = folders.pop()
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield prefix + entry.name, entry


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_symlink() and not path.exists():
        raise CheckpointError(f"{MANIFEST} is missing")
    try:
        files = read_json(path)["files"]
        for entry in files.values():
            if not (isinstance(entry["size"], int) and isinstance(entry["sha256"], str)):
                raise TypeError(entry)
        with open_file(path) as file:  # byte by byte, so that no change goes unnoticed
            is_whole = file.read() == _text(files).encode("utf-8", "surrogatepass")
    except (CheckpointError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{MANIFEST} is damaged") from error
    if not is_whole:
        raise CheckpointError(f"{MANIFEST} is damaged")
    return files


def _text(files: dict[str, Any]) -> str:
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": own}, indent=2, ensure_ascii=False) + "\n"


def _digest(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
