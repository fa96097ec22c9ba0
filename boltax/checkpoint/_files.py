"""Files that survive a power cut: JSON, and folders that appear whole or not at all.

Every write goes to a temporary name beside its target, is flushed to the disk, and takes the
target's name in one step. Reading trusts nothing: size, depth, duplicate keys and numbers are
checked before anyone uses the value. Knows nothing of what the files mean.
"""

import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boltax.errors import CheckpointError, RunDirectoryError

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 100


def write_text(path: Path, text: str) -> None:
    """Writes a text file durably; a reader sees the old content or the new one, never a part.

    Args:
        path: the file; its folder is made where it is missing.
        text: the content.

    Raises:
        RunDirectoryError: when the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file durably, indented for people.

    Args:
        path: the file; its folder is made where it is missing.
        value: plain JSON: None, bool, int, finite float, str, list, dict with str keys.

    Raises:
        CheckpointError: when it is larger or deeper than what `read_json` accepts.
        RunDirectoryError: when the file cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text) > MAX_JSON_BYTES // 4 and len(text.encode(errors="replace")) > MAX_JSON_BYTES:
        raise _unwritten(path, f"{len(text):,} characters", f"{MAX_JSON_BYTES:,} bytes")
    if _is_deeper_than(value, MAX_JSON_DEPTH):
        raise _unwritten(path, "containers in containers", f"{MAX_JSON_DEPTH} levels")
    write_text(path, text)


def read_json(path: Path) -> Any:
    """Reads a JSON file that somebody else may have written.

    Args:
        path: the file.

    Returns:
        The value: strict JSON (no NaN), no key twice, at most `MAX_JSON_DEPTH` levels and
        `MAX_JSON_BYTES` bytes.

    Raises:
        CheckpointError: when the file is missing, damaged, or larger or deeper than any that boltax
            writes.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_JSON_BYTES:
                raise _unreadable(path, f"it has {size:,} bytes, more than {MAX_JSON_BYTES:,}")
            text = file.read().decode("utf-8", "surrogatepass")
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except FileNotFoundError as error:
        raise _unreadable(path, "it does not exist") from error
    except CheckpointError:
        raise
    except RecursionError as error:
        raise _unreadable(path, f"it is nested more than {MAX_JSON_DEPTH} levels deep") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if _is_deeper_than(value, MAX_JSON_DEPTH):
        raise _unreadable(path, f"it is nested more than {MAX_JSON_DEPTH} levels deep")
    return value


def open_file(path: Path) -> io.BufferedReader:
    """Opens a file to be read; a link, which may lead anywhere, is refused.

    Raises:
        OSError: when it cannot be opened, or is a link, a folder, a pipe or a device.
    """
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError("it is a symbolic link, which may lead out of the run's folder")
    if not stat.S_ISREG(mode):
        raise OSError("it is not a file")  # opening a pipe would wait for ever
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # it may change meanwhile
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra))


def sync(folder: Path) -> None:
    """Flushes a folder's list of names to the disk."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def unwritable(path: Path, error: BaseException) -> RunDirectoryError:
    """The error for a file or folder of a run that could not be written."""
    return RunDirectoryError(
        f"Received {type(error).__name__} while writing {path}: {error}. Expected a folder that "
        "can be written, with space left on its disk. Free some space, or give another folder: "
        "logger_params={'base_log_dir': '...'}."
    )


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"Received {path}, which cannot be read: {why}. Expected a JSON file as boltax writes it. "
        "Give the folder of a run (it holds hparams.json), or restore the file from a copy."
    )


def _unwritten(path: Path, received: str, most: str) -> CheckpointError:
    return CheckpointError(
        f"Received {received} for {path}; expected at most {most}, since more is not read again. "
        "Keep large values in arrays, or out of what is saved."
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError(f"a key occurs twice among {sorted(name for name, _ in pairs)[:20]}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True
