"""Which runs are near a folder that was named: for the advice of the commands that want one."""

import difflib
import os
from collections import deque
from pathlib import Path

MOST_FOLDERS, DEEPEST, MOST_NAMED = 2000, 5, 4


def runs_below(folder: Path) -> list[Path]:
    """The folders of runs below a folder, the nearest first; it looks at no more than 2,000."""
    found: list[Path] = []
    waiting = deque([(folder, 0)])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            break
        path, depth = waiting.popleft()
        inside = _folders_in(path)
        if depth and ("checkpoints" in inside or (path / "hparams.json").is_file()):
            found.append(path)
        elif depth < DEEPEST:
            waiting += [(path / name, depth + 1) for name in inside]
    return found


def advice_on(path: str | os.PathLike[str]) -> str:
    """What to write in place of a folder that is no run: the run of a like name, or those near it.

    Example:
        >>> advice_on("nowhere")
        'Write the folder that trainer.log_dir names, such as runs/ResNet/version_0.'
    """
    asked = Path(path).expanduser()
    base = asked
    while not base.is_dir() and base != base.parent:
        base = base.parent
    runs = [str(run) for run in runs_below(base)]
    close = difflib.get_close_matches(str(asked), runs, 1)
    if close and base != asked:
        return f"Did you mean {close[0]}?"
    if not runs:
        return "Write the folder that trainer.log_dir names, such as runs/ResNet/version_0."
    more = f" and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
    where = "this folder" if base == Path() else base
    return f"Runs in {where}: {', '.join(runs[:MOST_NAMED])}{more}."


def _folders_in(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            folders = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:  # that of somebody else
        return []
    return sorted(name for name in folders if not name.startswith((".", "__")))
