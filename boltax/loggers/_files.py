"""Files that loggers write: names for images, figures, histograms and text; whole or not at all."""

import os
import re
from pathlib import Path

from boltax.loggers._values import Histogram

_ID = re.compile(r"[A-Za-z0-9_\-]+")
_STEP = re.compile(r"_(\d{6,})\.[a-z]+$")
_UNSAFE = re.compile(r"[^\w.\- ]+")


def file_name(key: str, step: int | None, suffix: str) -> str:
    """A relative path from a key and a step; slashes in the key are folders, and none leads out.

    Example:
        >>> file_name("val/reconstructions", 120, ".png")
        'val/reconstructions_000120.png'
        >>> file_name("../../etc/passwd", None, ".txt")
        'etc/passwd.txt'
    """
    parts = [_UNSAFE.sub("_", part) for part in key.split("/") if part.strip(". ")]
    stem = "/".join(parts) or "unnamed"
    return f"{stem}{suffix}" if step is None else f"{stem}_{int(step):06d}{suffix}"


def step_of_file(name: str) -> int | None:
    """The step in a name that `file_name` made; None where there is none.

    Example:
        >>> step_of_file("val/reconstructions_000120.png")
        120
    """
    found = _STEP.search(name)
    return None if found is None else int(found[1])


def replace_file(path: str, data: bytes) -> None:
    """Writes a file so that at any moment either the old or the new one is there, whole."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def remember(folder: str, name: str, value: str) -> None:
    """Writes a small text, such as the id of a run on a server, to a file of the run's folder."""
    replace_file(os.path.join(folder, name), value.encode())


def recall(folder: str, name: str) -> str | None:
    """The id that was remembered under this name; None where there is none, or something else."""
    path = Path(folder, name)
    text = path.read_bytes()[:200].decode(errors="replace").strip() if path.is_file() else ""
    return text if _ID.fullmatch(text) else None


def histogram_text(histogram: Histogram) -> str:
    """A histogram as CSV: one line per bin with its limits and its count."""
    bins = zip(histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True)
    lines = (f"{float(left)!r},{float(right)!r},{int(count)}" for left, right, count in bins)
    return "\n".join(("left,right,count", *lines, ""))
