"""A pytree of arrays in a folder: the arrays through orbax, its structure beside them as JSON.

Orbax is given plain nested dicts of arrays, so that other programs can read them too; what it
cannot store (None, empty and zero-size parts) is in the structure. Loading runs no code from the
folder and never changes a shape or dtype.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._types import PyTree
from boltax.checkpoint._differences import Difference, compare, table
from boltax.checkpoint._dtypes import is_key
from boltax.checkpoint._files import files_below, read_json, write_json
from boltax.checkpoint._leaf import Leaf, Names, unstorable
from boltax.checkpoint._orbax import (
    ON_HOST,
    damaged,
    lacks_index,
    load_flat,
    save_flat,
    stays_on_host,
)
from boltax.checkpoint._structure import (
    Structure,
    arrays_of,
    children_of,
    parts_of,
    rebuilt,
    structure_of,
    walk,
)
from boltax.errors import CheckpointError
from boltax.parallel._arrays import put_by_all
from boltax.parallel._group import group

_MOST_INLINE_BYTES = 1024  # the store packs, and compresses, small arrays into its index


def write_arrays(folder: Path, name: str, tree: PyTree) -> None:
    """Writes a container of arrays: ``<name>/`` with the arrays, and ``structure.json``.

    Args:
        folder: an existing folder.
        name: the subfolder for the arrays.
        tree: nested containers of arrays, random keys, Python numbers and None.

    Raises:
        CheckpointError: when the tree holds something else.
        RunDirectoryError: when the files cannot be written.
    """
    structure = structure_of(tree)
    if group().is_first:
        write_json(folder / "structure.json", structure)
    if arrays := {names: leaf for names, leaf in _raw_leaves(tree) if leaf.size}:
        save_flat(folder / name, arrays)


def read_structure(folder: Path) -> Structure:
    """The structure of the arrays in a folder, checked.

    Raises:
        CheckpointError: when it is missing or damaged.
    """
    structure = read_json(folder / "structure.json")
    _ = list(arrays_of(structure))
    return structure


def fault_of_arrays(folder: Path, name: str) -> str | None:
    """Why the arrays in a folder cannot be read, as far as that shows without reading them."""
    try:
        _check_sizes(folder / name, dict(arrays_of(read_structure(folder))))
    except CheckpointError as error:
        return str(error)
    return "its arrays lack their index" if lacks_index(folder / name) else None


def read_arrays(folder: Path, name: str, template: PyTree = None) -> PyTree:
    """Reads what `write_arrays` wrote.

    Args:
        folder: the folder that holds ``structure.json``.
        name: the subfolder of the arrays.
        template: a tree of arrays or `jax.ShapeDtypeStruct` that has to be matched exactly; the
            result has its containers and its sharding. A part that is `...` matches anything, and
            becomes NumPy arrays in dicts, lists and tuples. Without a template, so does the whole,
            but that its arrays are put on the default device.

    Returns:
        The tree, bitwise as it was saved.

    Raises:
        CheckpointError: when the files are damaged, or do not fit the template.
    """
    structure = read_structure(folder)
    if template is not None and (found := _misfits(structure, template)):
        raise CheckpointError(
            f"Received the checkpoint {folder}, which does not fit the model; expected the same "
            f"names, shapes and dtypes:\n{table(found)}\n"
            "Load it with the class and the model_hparams that it was saved with."
        )
    leaves, shardings = dict(arrays_of(structure)), _shardings(template)
    _check_sizes(folder / name, leaves)
    places = {names: _place(names, shardings) for names in leaves}
    return _assemble(structure, template, read_leaves(folder / name, leaves, places), ())


def read_leaves(
    folder: Path, leaves: Mapping[Names, Leaf], places: Mapping[Names, Any]
) -> dict[Names, Any]:
    """Reads arrays by name.

    Args:
        folder: the folder of the arrays.
        leaves: what is read, all of the arrays in it or some.
        places: shardings, or `ON_HOST`; None for the default device.

    Raises:
        CheckpointError: when the files are damaged.
    """
    stored = {names: leaf for names, leaf in leaves.items() if leaf.nbytes}
    arrays: dict[Names, Any] = {n: _empty(leaf, places[n]) for n, leaf in leaves.items()}
    if stored:
        _check_sizes(folder, stored)
        raw = {n: places[n] if leaf.key is None else None for n, leaf in stored.items()}
        arrays |= load_flat(folder, stored, raw)
    return {names: _typed(arrays[names], leaves[names], places[names]) for names in leaves}


def _misfits(structure: Structure, template: PyTree) -> list[Difference]:
    """What differs between what is stored and a template, but for its open parts."""
    closed = jax.tree.map(lambda leaf: None if leaf is ... else leaf, template)
    saved, wanted = dict(walk(structure)), dict(walk(structure_of(closed)))
    for part in (names for names, place in _shardings(template).items() if place is ON_HOST):
        wanted[part] = "anything"
        if inside := [names for names in saved if _is_below(names, part)]:
            del wanted[part]
            saved = {names: text for names, text in saved.items() if names not in inside}
    return compare(saved, wanted)


def _is_below(names: Names, part: Names) -> bool:
    return names[: len(part)] == part


def _place(names: Names, shardings: Mapping[Names, Any]) -> Any:
    """Where an array goes: where the template says, or to the host if a part around it is open."""
    around = (names[:length] for length in range(len(names), -1, -1))
    return next((shardings[part] for part in around if part in shardings), None)


def _raw_leaves(tree: PyTree, path: Names = ()) -> list[tuple[Names, Any]]:
    """Every array as it is stored: random keys as their numbers, Python numbers as arrays."""
    level = children_of(tree)
    if level is not None:
        return [leaf for key, child in level[1] for leaf in _raw_leaves(child, (*path, key))]
    if tree is None:
        return []
    if not isinstance(tree, jax.Array):
        array = np.asarray(tree)
        return [(path, array.astype(array.dtype.newbyteorder("="), copy=False))]
    if tree.is_deleted():
        raise unstorable(path, "an array whose memory was given to a later step", "live ones")
    if is_key(tree.dtype):
        return [(path, jax.random.key_data(tree))]
    return [(path, tree)]


def _shardings(template: PyTree, path: Names = ()) -> dict[Names, Any]:
    """The sharding of each array of a template; `ON_HOST` for its open parts."""
    level = children_of(template)
    if level is None:
        return {path: ON_HOST if template is ... else getattr(template, "sharding", None)}
    return {k: v for key, child in level[1] for k, v in _shardings(child, (*path, key)).items()}


def _typed(array: Any, leaf: Leaf, place: Any) -> Any:
    if leaf.python is not None:
        return leaf.python(array.item())
    if leaf.key is None:
        return array
    keys = jax.random.wrap_key_data(array, impl=leaf.key)
    return keys if place is None or place is ON_HOST else _put(keys, place)


def _put(array: Any, place: Any) -> Any:
    return jax.device_put(array, place) if group().is_alone else put_by_all(array, place)


def _empty(leaf: Leaf, place: Any) -> Any:
    """An array without elements, which are not stored; a placeholder for all others."""
    if leaf.nbytes:
        return None
    empty = np.zeros(leaf.raw_shape, leaf.raw_dtype)
    if place is ON_HOST or stays_on_host(leaf):
        return empty
    return jnp.asarray(empty) if place is None else _put(empty, place)


def _assemble(structure: Structure, template: PyTree, arrays: dict[Names, Any], path: Names) -> Any:
    level = parts_of(structure)
    if level is None:
        return None if structure is None else arrays[path]
    kind, parts = level
    inner = {} if template is ... else dict((children_of(template) or ("", []))[1])
    children = {
        k: _assemble(part, ... if template is ... else inner.get(k), arrays, (*path, k))
        for k, part in parts
    }
    if template is not None and template is not ...:
        return rebuilt(template, children)
    if kind in ("list", "tuple"):
        return list(children.values()) if kind == "list" else tuple(children.values())
    if kind == "dict" or template is ...:
        return children
    raise CheckpointError(
        f"Received a checkpoint with a {kind} at {'/'.join(path) or 'the top'}; expected dicts, "
        "lists and tuples, or a template whose classes are known. Write restore(template=...) "
        "with arrays of the same structure."
    )


def _check_sizes(folder: Path, declared_leaves: Mapping[Names, Leaf]) -> None:
    """Refuses arrays that cannot be there before memory is taken: they are uncompressed."""
    leaves = {names: leaf for names, leaf in declared_leaves.items() if leaf.nbytes}
    if folder.is_dir() != bool(leaves):
        raise damaged(
            folder,
            "it does not exist" if leaves else "structure.json, beside it, declares no arrays",
        )
    try:
        on_disk = sum(path.stat().st_size for path in files_below(folder))
    except OSError as error:
        raise damaged(folder, str(error)) from error
    declared = sum(leaf.nbytes for leaf in leaves.values() if leaf.nbytes > _MOST_INLINE_BYTES)
    if declared > on_disk:
        raise damaged(
            folder, f"structure.json declares {declared:,} bytes, and its files have {on_disk:,}"
        )
