"""Orbax, and the only file that imports it: arrays written to a folder and read back.

It is imported when something is first saved or loaded. Nothing is left running afterwards, nothing
is printed, and what is read has exactly the shapes and dtypes that were asked for.
"""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._trees import path_names
from boltax.checkpoint._files import unwritable
from boltax.checkpoint._leaf import Leaf, Names
from boltax.errors import CheckpointError
from boltax.parallel._group import group

_INDEX = "manifest.ocdbt"
_PATTERN = re.compile(r"[*?\[\]{}]" if os.sep == "\\" else r"[*?\[\]{}\\]")
ON_HOST = object()
"""In place of a sharding: a NumPy array."""


def save_flat(folder: Path, arrays: Mapping[Names, Any]) -> None:
    """Writes arrays to a new folder; their names become nested dicts.

    Args:
        folder: is made.
        arrays: NumPy or JAX arrays by name, none of them empty.

    Raises:
        RunDirectoryError: when they cannot be written.
    """
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        try:
            with _literal(folder) as path:
                checkpointer.save(path, args=ocp.args.PyTreeSave(_nested(arrays)))
            if not (folder / _INDEX).is_file():  # the files of this process were not found again
                raise FileNotFoundError(f"{_INDEX} is missing after the save")
        except Exception as error:  # orbax and tensorstore raise many types for a full disk
            raise unwritable(folder, error) from error


def load_flat(
    folder: Path, leaves: Mapping[Names, Leaf], shardings: Mapping[Names, Any]
) -> dict[Names, Any]:
    """Reads arrays that `save_flat` wrote.

    Args:
        folder: where they are.
        leaves: what each is expected to be; others that are there are not read.
        shardings: where to put them; `ON_HOST` for NumPy arrays; the default device for the rest.

    Returns:
        JAX arrays by name, or NumPy arrays for types that JAX, as it is set up, does not have.

    Raises:
        CheckpointError: when they cannot be read, or are not what is expected.
    """
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        try:
            with _late_answers_ignored(), _literal(folder) as path:
                return _load(ocp, checkpointer, path, leaves, shardings)
        except Exception as error:  # a damaged file can raise nearly anything below
            raise damaged(folder, f"{type(error).__name__}: {str(error)[:300]}") from error


def _load(
    ocp: Any,
    checkpointer: Any,
    path: Path,
    leaves: Mapping[Names, Leaf],
    shardings: Mapping[Names, Any],
) -> dict[Names, Any]:
    metadata = checkpointer.metadata(path).item_metadata
    if metadata is None:
        raise FileNotFoundError("there are no arrays in it")
    _check(metadata.tree, leaves)
    places = {
        names: shardings.get(names) or _default_sharding()
        for names, leaf in leaves.items()
        if shardings.get(names) is not ON_HOST and not stays_on_host(leaf)
    }
    # Those of one device are put there below: what orbax leaves behind when it puts them there and
    # a file is damaged, Python prints as errors that it ignores.
    whole = {
        n for n, place in places.items() if isinstance(place, jax.sharding.SingleDeviceSharding)
    }
    arguments: dict[Names, Any] = {
        names: ocp.ArrayRestoreArgs(
            sharding=places[names], global_shape=leaf.raw_shape, dtype=leaf.raw_dtype
        )
        if names in places and names not in whole
        else ocp.RestoreArgs(restore_type=np.ndarray)
        for names, leaf in leaves.items()
    }
    restored = checkpointer.restore(
        path,
        args=ocp.args.PyTreeRestore(
            item=_nested(dict.fromkeys(leaves, 0)),
            restore_args=_nested(arguments),
            partial_restore=True,
        ),
    )
    _check(restored, leaves)
    arrays = {names: _at(restored, names) for names in leaves}
    return {n: jax.device_put(a, places[n]) if n in whole else a for n, a in arrays.items()}


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a tree of arrays as orbax itself names it."""
    return (folder / "_METADATA").is_file() or (folder / _INDEX).is_file()


def foreign_arrays(folder: Path) -> dict[Names, tuple[tuple[int, ...], Any]]:
    """The shape and dtype of each array that another program stored in a folder.

    Raises:
        CheckpointError: when orbax cannot tell.
    """
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        leaves = _foreign_leaves(checkpointer, folder)
    return {names: (tuple(leaf.shape), leaf.dtype) for names, leaf in leaves.items()}


def load_foreign(folder: Path, wanted: Collection[Names]) -> dict[Names, np.ndarray]:
    """Some of the arrays that another program stored in a folder; the others are not read.

    Raises:
        CheckpointError: when they cannot be read.
    """
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        try:
            with _literal(folder) as path:
                tree = checkpointer.metadata(path).item_metadata.tree
                arguments = ocp.RestoreArgs(restore_type=np.ndarray)
                item = jax.tree_util.tree_map_with_path(
                    lambda keys, leaf: leaf if path_names(keys) in wanted else ..., tree
                )
                restored = checkpointer.restore(
                    path,
                    args=ocp.args.PyTreeRestore(
                        item=item, restore_args=jax.tree.map(lambda _: arguments, tree)
                    ),
                )
        except Exception as error:  # a damaged file can raise nearly anything below
            raise _unreadable(folder, error) from error
    flat = jax.tree_util.tree_leaves_with_path(restored)
    return {path_names(keys): np.asarray(leaf) for keys, leaf in flat if leaf is not ...}


def _foreign_leaves(checkpointer: Any, folder: Path) -> dict[Names, Any]:
    try:
        with _literal(folder) as path:
            tree = checkpointer.metadata(path).item_metadata.tree
    except Exception as error:  # as above
        raise _unreadable(folder, error) from error
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {path_names(keys): leaf for keys, leaf in flat if hasattr(leaf, "shape")}


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"Received the folder {folder}, which orbax cannot read ({type(error).__name__}: "
        f"{str(error)[:300]}); expected arrays as orbax stores a tree of them. Give the folder "
        "that holds _METADATA, and fetch it again where it is damaged."
    )


def lacks_index(folder: Path) -> bool:
    """Whether a folder of arrays lacks the file through which they are found."""
    return folder.is_dir() and not (folder / _INDEX).is_file()


def stays_on_host(leaf: Leaf) -> bool:
    """Whether JAX as set up lacks the type (int64 without x64), so that NumPy keeps it."""
    if leaf.python is not None:
        return True
    return bool(jax.dtypes.canonicalize_dtype(leaf.raw_dtype) != leaf.raw_dtype)


def _default_sharding() -> Any:
    return jax.sharding.SingleDeviceSharding(next(iter(jnp.zeros(()).devices())))


def damaged(folder: Path, why: str) -> CheckpointError:
    """The error for arrays that cannot be read."""
    return CheckpointError(
        f"Received the arrays in {folder}, which cannot be read: {why}. Expected them as boltax "
        "wrote them. Restore the folder from a copy, or load another checkpoint: "
        "restore(step=...)."
    )


def _nested(flat: Mapping[Names, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for names, value in flat.items():
        node = tree
        for name in names[:-1]:
            node = node.setdefault(_safe(name), {})
        node[_safe(names[-1])] = value
    return tree


def _at(tree: Any, names: Names) -> Any:
    for name in names:
        tree = tree[_safe(name)]
    return tree


def _safe(name: str) -> str:
    """A name without separators or dots, so that none leads out of the folder, or into another."""
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E") or "%"


def _check(stored: Any, leaves: Mapping[Names, Leaf]) -> None:
    """Compares the arrays with what is expected: orbax would cast them without a word."""
    for names, leaf in leaves.items():
        array = _at(stored, names)
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        if (shape, dtype) != (leaf.raw_shape, leaf.raw_dtype):
            raise ValueError(
                f"{'/'.join(names)} is {dtype}{list(shape)} among the arrays, and "
                f"{leaf.raw_dtype}{list(leaf.raw_shape)} in structure.json"
            )


@contextmanager
def _late_answers_ignored() -> Generator[None]:
    """Lets Python print no errors of reads that still run when the first of them has failed.

    They answer to an event loop that has ended by then, at any time after this returns. So after a
    failure the filter stays.
    """
    before = sys.unraisablehook
    if isinstance(before, partial) and before.func is _unless_late:
        yield
        return
    filtered = partial(_unless_late, before)
    sys.unraisablehook = filtered
    yield
    if sys.unraisablehook is filtered:
        sys.unraisablehook = before


def _unless_late(show: Callable[[Any], Any], unraisable: Any) -> None:
    is_late = unraisable.object is None and isinstance(unraisable.exc_value, RuntimeError)
    if not (is_late and str(unraisable.exc_value) == "Event loop is closed"):
        show(unraisable)


@contextmanager
def _literal(folder: Path) -> Generator[Path]:
    """A folder under a path that holds no pattern.

    Orbax looks for its own files by patterns which begin with the whole path, so it finds none in
    ``lr=[0.1]``, and those of a neighbour in ``a*``. Such a folder is reached through a link.
    """
    path = folder.absolute()
    if not _PATTERN.search(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="boltax-", dir=_plain_place()) as place:
        link = Path(place, "arrays")
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name


def _plain_place() -> str:
    """A folder for links, whose own path holds no pattern."""
    usual = tempfile.gettempdir()
    return "/tmp" if _PATTERN.search(usual) else usual


@contextmanager
def _orbax() -> Generator[Any]:
    """Orbax, without its log lines, and free to move arrays between device and host."""
    from absl import logging as absl_logging  # makes the logger that is asked for below

    absl_logger: logging.Logger = absl_logging.get_absl_logger()
    level = absl_logger.level
    absl_logger.setLevel(logging.CRITICAL)
    try:
        import orbax.checkpoint as ocp

        with jax.transfer_guard("allow"):
            yield ocp
    finally:
        absl_logger.setLevel(level)


def _checkpointer(ocp: Any) -> Any:
    """One that saves and loads before it returns, so nothing is left running."""
    # No compression: it makes weights 8 % smaller in three times the time, and hides their size.
    options = _for_several(ocp)
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=True, use_zarr3=True, use_compression=False, **options
    )
    return ocp.Checkpointer(handler, **options)


def _for_several(ocp: Any) -> dict[str, Any]:
    """What has the processes of a job wait for each other without their devices.

    These may be in the middle of a step: saving is done in a thread beside it.
    """
    processes = group()
    if processes.is_alone:
        return {}
    return {
        "multiprocessing_options": ocp.options.MultiprocessingOptions(
            primary_host=0,
            active_processes=set(range(processes.count)),
            barrier_sync_key_prefix="boltax",
        )
    }
