"""What the checkpoints of a run are, as plain text: a list, one in detail, and two compared.

Nothing of a model is built. Whatever comes out of a file is cut and freed of control characters
before it is shown, since a terminal would obey them.
"""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boltax.checkpoint._arrays import read_structure
from boltax.checkpoint._differences import compare, table
from boltax.checkpoint._earlier import earlier_runs
from boltax.checkpoint._files import files_below
from boltax.checkpoint._leaf import Leaf, Names, is_array, leaf_of
from boltax.checkpoint._orbax import ON_HOST, load_flat
from boltax.checkpoint._partial import open_checkpoint, variable_name
from boltax.checkpoint._progress_json import decode_progress
from boltax.checkpoint._rundir import locate, open_run_directory
from boltax.checkpoint._step_folders import Saved, StepFolders, folders_in
from boltax.checkpoint._structure import walk
from boltax.errors import CheckpointError


class Report(NamedTuple):
    """A text to be printed, whether anything in it is damaged, and whether there is nothing."""

    text: str
    is_damaged: bool
    is_empty: bool = False


def list_checkpoints(run: str | Path, *, verify: bool = True, width: int = 80) -> Report:
    """Lists every checkpoint of a run: kind, step, epoch, time, size, metrics, and whether good.

    Args:
        run: the run's folder.
        verify: compare all files with their checksums.
        width: columns of the terminal.

    Raises:
        RunDirectoryError: when there is no such folder.
    """
    directory = open_run_directory(run)
    rows, notes, total, damaged = [_TITLES], [""], 0, 0
    for folders in map(folders_in, (directory.best, directory.saved, directory.resume)):
        for saved in folders.saved():
            faults = folders.faults(saved) if verify else []
            size = _size(saved.folder)
            total, damaged = total + size, damaged + bool(faults)
            state = "damaged" if faults else "good" if verify else "-"
            rows.append((*_facts(folders, saved), _bytes(size), state))
            notes.append(_indented("\n".join([*map(_clean, faults), *_metrics(saved)]), width))
    if len(rows) == 1:
        return Report(f"{run}: no checkpoints", is_damaged=False, is_empty=True)
    lines = [line for pair in zip(_aligned(rows), notes, strict=True) for line in pair if line]
    found = f"{damaged} damaged" if damaged else "all good" if verify else "not verified"
    earlier = [f"an earlier run is in {_clean(str(path))}" for path in earlier_runs(run)]
    end = f"{len(rows) - 1} checkpoints, {_bytes(total)}, {found}"
    return Report("\n".join([f"{run}", "", *lines, "", end, *earlier]), is_damaged=damaged > 0)


def describe_checkpoint(checkpoint: str | Path, *, verify: bool = True, width: int = 80) -> Report:
    """Describes one checkpoint: what it is, and each array with its shape, dtype and bytes.

    Args:
        checkpoint: the folder of one checkpoint, ``<run>/checkpoints/resume/400``.
        verify: compare all files with their checksums.
        width: columns of the terminal.

    Raises:
        CheckpointError: when there is none, or its structure cannot be read.
    """
    folders, saved = _named(checkpoint)
    faults = folders.faults(saved) if verify else []
    facts = zip(_TITLES, _facts(folders, saved), strict=False)
    head = [f"{title}: {fact}" for title, fact in facts if fact != "-"]
    head += [f"files: {_bytes(_size(saved.folder))}", *_devices(saved), *_metrics(saved)]
    state = [f"damaged: {_clean(fault)}" for fault in faults]
    state = state or (["every file is as it was saved"] if verify else [])
    texts = _arrays(saved)
    leaves = {names: leaf_of(text) for names, text in texts.items()}
    held: Any = saved.content.get("lies")
    lies: dict[str, Any] = held if isinstance(held, dict) else {}
    rows: list[tuple[str, ...]] = [("array", "form", "bytes", *["divided by"] * bool(lies))]
    for names, leaf in leaves.items():
        name = "/".join(names)
        divided = [_clean(str(lies.get(name, "nothing")))] if lies else []
        rows.append((_clean(name), texts[names], _bytes(leaf.nbytes), *divided))
    total = sum(leaf.nbytes for leaf in leaves.values())
    numbers = sum(leaf.nbytes // leaf.raw_dtype.itemsize for leaf in leaves.values())
    end = f"{len(leaves):,} arrays, {numbers:,} numbers, {_bytes(total)}"
    folded = [textwrap.fill(line, width, subsequent_indent="  ") for line in (*head, *state)]
    parts = [f"{saved.folder}", *folded, "", *_aligned(rows), "", end]
    return Report("\n".join(parts), is_damaged=bool(faults))


def compare_checkpoints(first: str | Path, second: str | Path) -> Report:
    """Compares two checkpoints: what differs in structure, and the largest difference in values.

    Two of different kinds are compared by the model's variables, which both have.

    Args:
        first: a run's folder, for its best model, or the folder of one checkpoint.
        second: the other one.

    Raises:
        CheckpointError: when one of them does not exist, or is damaged.
    """
    sides = [open_checkpoint(first), open_checkpoint(second)]
    is_same_kind = sides[0][0].content == sides[1][0].content
    left, right = (_by_name(*side, is_same_kind=is_same_kind) for side in sides)
    found = compare(
        {name: text for name, (_, text) in left.items()},
        {name: text for name, (_, text) in right.items()},
    )
    lines = [f"A  {sides[0][1].folder}", f"B  {sides[1][1].folder}", ""]
    lines += [_clean(table(found, "A", "B")), ""] if found else []
    shared = [name for name, (_, text) in left.items() if right.get(name, ("", ""))[1] == text]
    one, other = (
        _values(*side, [names[name][0] for name in shared])
        for side, names in zip(sides, (left, right), strict=True)
    )
    rows = [("array", "form", "differing", "largest difference")]
    rows += [
        (_clean("/".join(name)), left[name][1], *_difference(a, b))
        for name, a, b in zip(shared, one, other, strict=True)
        if a.tobytes() != b.tobytes()
    ]
    lines += [*_aligned(rows), ""] if len(rows) > 1 else []
    lines.append(
        f"{len(found)} differences in structure; of {len(shared)} arrays of the same form "
        f"{len(shared) - len(rows) + 1} are equal and {len(rows) - 1} differ"
    )
    return Report("\n".join(lines), is_damaged=False)


_TITLES: tuple[str, ...] = ("kind", "step", "epoch", "saved", "size", "files")


def _facts(folders: StepFolders, saved: Saved) -> tuple[str, ...]:
    """Kind, step, epoch and time of a checkpoint."""
    epoch = saved.content.get("epoch") if folders.content == "progress" else None
    when = saved.time[:16].replace("T", " ")
    return folders.directory.name, str(saved.step), _clean(_or_dash(epoch)), _clean(when or "-")


def _metrics(saved: Saved) -> list[str]:
    """The metrics of a checkpoint in one line: its own, or those recorded last in its progress."""
    record = saved.content.get("record")
    try:
        metrics = decode_progress(record if isinstance(record, dict) else saved.content)
    except CheckpointError:
        return []
    if not isinstance(metrics, dict):
        return []
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
    shown = [f"{_clean(k)} {_number(v)}" for k, v in numbers.items()]
    return ["   ".join(shown)] if shown else []


def _devices(saved: Saved) -> list[str]:
    """The devices on which a run was that saved a resume checkpoint, where it was on several."""
    config: Any = saved.content.get("config")
    place: Any = saved.content.get("place")  # of each member of a population
    whose, parallel = "member", place
    if not isinstance(place, dict):
        whose, parallel = "run", config.get("parallel") if isinstance(config, dict) else None
    mesh: Any = parallel.get("mesh") if isinstance(parallel, dict) else None
    if not isinstance(mesh, dict):
        return []
    sizes: list[Any] = list(mesh.values())
    if -1 in sizes and all(isinstance(size, int) and size for size in sizes):
        number: Any = saved.content.get("devices")
        known = -math.prod(sizes)
        sizes = [number // known if size == -1 and type(number) is int else size for size in sizes]
    axes = " x ".join(f"{name}={size}" for name, size in zip(mesh, sizes, strict=True))
    return [_clean(f"devices of the {whose}: {axes}")]


def _named(checkpoint: str | Path) -> tuple[StepFolders, Saved]:
    _, directory, step = locate(checkpoint)
    folders = folders_in(directory)
    for saved in folders.saved():
        if saved.step == step and not saved.folder.is_symlink():
            return folders, saved
    steps = ", ".join(str(saved.step) for saved in folders.saved()) or "none"
    raise CheckpointError(
        f"Received {str(checkpoint)!r}; expected the folder of a run or of one checkpoint in it. "
        f"Steps in {directory}: {steps}."
    )


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path names one checkpoint, and no run."""
    return locate(path)[2] is not None


def _arrays(saved: Saved) -> dict[Names, str]:
    return {n: text for n, text in walk(read_structure(saved.folder)) if is_array(text)}


def _by_name(
    folders: StepFolders, saved: Saved, *, is_same_kind: bool
) -> dict[Names, tuple[Names, str]]:
    """Each array with the name to compare it by."""
    arrays = _arrays(saved).items()
    named = ((n if is_same_kind else variable_name(n, folders), n, text) for n, text in arrays)
    return {name: (n, text) for name, n, text in named if name is not None}


def _values(folders: StepFolders, saved: Saved, names: list[Names]) -> Iterator[np.ndarray]:
    texts = _arrays(saved)
    leaves: dict[Names, Leaf] = {n: leaf_of(texts[n]) for n in names}
    stored = {n: leaf for n, leaf in leaves.items() if leaf.nbytes}
    places = dict.fromkeys(stored, ON_HOST)
    arrays = load_flat(saved.folder / folders.arrays, stored, places) if stored else {}
    for n in names:
        yield np.asarray(arrays[n]) if n in arrays else np.zeros(0)


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[str, str]:
    """The share of elements that differ, and the largest difference of those that are numbers."""
    kind = np.complex128 if np.iscomplexobj(a) else np.float64
    wide, other = a.astype(kind), b.astype(kind)
    differs = ~((wide == other) | (np.isnan(wide) & np.isnan(other)))
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.abs(wide - other)[differs]
    if not sizes.size:
        return "bits only", "0"
    largest = "nan" if np.isnan(sizes).all() else f"{np.nanmax(sizes):.3g}"
    return f"{100 * sizes.size / a.size:.3g} %", largest


def _size(folder: Path) -> int:
    files = () if folder.is_symlink() else files_below(folder)
    return sum(path.lstat().st_size for path in files)


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} B"


def _or_dash(value: Any) -> str:
    return str(value) if type(value) is int else "-"


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else _clean(str(value))


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:10_000])


def _indented(text: str, width: int) -> str:
    indent = " " * 9
    lines = [
        textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
        for line in text.splitlines()
    ]
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
