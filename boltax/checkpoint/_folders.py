"""Folders that appear whole or not at all, and give way to a newer one of the same name.

A folder is assembled under a temporary name beside its place, flushed to the disk, and renamed.
Killed at any moment, a process leaves the old folder or the new one, and rubbish that is ignored
and deleted with the next save. Knows nothing of what the folders hold.
"""

import os
import shutil
from pathlib import Path

from boltax.checkpoint._files import files_below, sync
from boltax.checkpoint._manifest import write_manifest


def sync_tree(folder: Path) -> None:
    """Flushes every file and folder below; orbax does so for its arrays only."""
    for path in files_below(folder):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    for parent, _, _ in os.walk(folder, topdown=False):
        sync(Path(parent))


def temporary_path(final: Path) -> Path:
    """The folder beside `final` in which is assembled what `commit_folder` puts there."""
    return final.with_name(f".tmp-{final.name}")


def temporary_folder(final: Path) -> Path:
    """That folder, new and empty."""
    temporary = temporary_path(final)
    temporary.mkdir(parents=True)
    return temporary


def commit_folder(final: Path) -> None:
    """Gives the assembled folder its manifest and its final name, durably.

    An older folder of that name makes way.
    """
    temporary = temporary_path(final)
    replaced = final.with_name(f".replaced-{final.name}")
    sync_tree(temporary)
    write_manifest(temporary)
    if final.exists():
        final.replace(replaced)
    temporary.replace(final)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def committed_folders(directory: Path) -> dict[str, Path]:
    """The folders that were committed and not removed, by name. Changes nothing."""
    try:
        found = {path.name: path for path in directory.iterdir() if path.is_dir()}
    except FileNotFoundError:
        return {}
    replaced = {
        name.removeprefix(".replaced-"): path
        for name, path in found.items()
        if name.startswith(".replaced-")
    }
    return replaced | {name: path for name, path in found.items() if not name.startswith(".")}


def remove_folder(folder: Path) -> None:
    """Deletes a committed folder: it is gone at once, though its files may take a moment."""
    removed = folder.with_name(f".removed-{folder.name}")
    folder.replace(removed)
    shutil.rmtree(removed, ignore_errors=True)


def clean_leftovers(directory: Path) -> None:
    """Deletes what a killed process left, and puts a folder back that it was replacing."""
    for path in list(directory.iterdir()):
        if path.name.startswith(".replaced-"):
            final = path.with_name(path.name.removeprefix(".replaced-"))
            if not final.exists():
                path.replace(final)
                continue
        if path.name.startswith((".replaced-", ".tmp-", ".removed-")):
            shutil.rmtree(path, ignore_errors=True)
