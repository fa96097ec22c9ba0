"""Where the system has the caches of a user; each use of one has a folder of its own in it."""

import os
import sys
from pathlib import Path


def user_cache(use: str) -> Path:
    """The folder of the user's cache for `use`, which need not exist.

    Raises:
        RuntimeError: when the user has no home.
    """
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not caches.is_absolute():  # the standard says to ignore it then
            caches = Path.home() / ".cache"
    return caches / "boltax" / use
