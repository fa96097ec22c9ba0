"""Names of the files that loggers write for images, figures, histograms and text."""

import re

from boltax.loggers._values import Histogram

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


def histogram_text(histogram: Histogram) -> str:
    """A histogram as CSV: one line per bin with its limits and its count."""
    bins = zip(histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True)
    lines = (f"{float(left)!r},{float(right)!r},{int(count)}" for left, right, count in bins)
    return "\n".join(("left,right,count", *lines, ""))
