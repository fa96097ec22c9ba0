"""What a pytree of arrays looks like, as JSON: names, shapes, dtypes, and parts without data.

A structure has the form of its tree. Dicts and lists are themselves, an array is a text such as
``"float32[3]"`` (see `_leaf`), None is null, and every other container is a dict with the one key
``"__tuple__"`` or ``"__node__"``:

    {"params": {"Dense_0": {"kernel": "float32[28, 64]", "bias": "float32[64]"}}, "batch_stats": {}}

It is kept beside the arrays, because orbax stores neither empty parts nor, for another set of
devices, enough to load without being told what to expect. Reads and writes no files.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax

from boltax._base._types import PyTree
from boltax.checkpoint._leaf import Leaf, Names, damaged_structure, leaf_of, leaf_text, unstorable

Structure: TypeAlias = Any

_TAGS = ("__tuple__", "__node__")


def children_of(tree: PyTree) -> tuple[str, list[tuple[str, PyTree]]] | None:
    """One level of a tree.

    Returns:
        The kind of container (``"dict"``, ``"list"``, ``"tuple"``, or the name of its class) and
        its named children, or None for a leaf.
    """
    if isinstance(tree, Mapping):
        return "dict", [(key, child) for key, child in tree.items()]
    if type(tree) in (list, tuple):
        return type(tree).__name__, [(str(i), child) for i, child in enumerate(tree)]
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    if tree is None or (len(children) == 1 and children[0][1] is tree):
        return None
    return type(tree).__name__, [(_key_name(path[0]), child) for path, child in children]


def rebuilt(tree: PyTree, children: Mapping[str, PyTree]) -> PyTree:
    """A container like `tree`, with other children."""
    if isinstance(tree, Mapping):
        return type(tree)({key: children[key] for key in tree})  # pyright: ignore[reportCallIssue]
    if type(tree) in (list, tuple):
        return type(tree)(children[str(i)] for i in range(len(tree)))
    paths, treedef = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda node: node is not tree
    )
    return treedef.unflatten([children[_key_name(path[0])] for path, _ in paths])


def structure_of(tree: PyTree, path: Names = ()) -> Structure:
    """The structure of a tree of arrays, or of their shapes.

    Args:
        tree: nested containers of arrays, `jax.ShapeDtypeStruct`, random keys, Python numbers and
            None.
        path: names of the containers around it, for messages.

    Raises:
        CheckpointError: for anything else in the tree.
    """
    if tree is None:
        return None
    level = children_of(tree)
    if level is None:
        return leaf_text(tree, path)
    kind, children = level
    if kind == "dict":
        for key, _ in children:
            if not isinstance(key, str):
                raise unstorable(path, f"a dict with the key {key!r}", "keys that are strings")
        return {_escaped(key): structure_of(child, (*path, key)) for key, child in children}
    if kind == "list":
        return [structure_of(child, (*path, key)) for key, child in children]
    if kind == "tuple":
        return {"__tuple__": [structure_of(child, (*path, key)) for key, child in children]}
    named = {key: structure_of(child, (*path, key)) for key, child in children}
    return {"__node__": {"type": kind, "children": named}}


def parts_of(structure: Structure) -> tuple[str, list[tuple[str, Structure]]] | None:
    """One level of a structure, as `children_of` gives it for a tree.

    Raises:
        CheckpointError: when it is not a structure.
    """
    if structure is None or isinstance(structure, str):
        return None
    if isinstance(structure, list):
        return "list", [(str(i), child) for i, child in enumerate(structure)]
    if not isinstance(structure, dict):
        raise damaged_structure(structure)
    tag = next((tag for tag in _TAGS if tag in structure), None)
    if tag is None:
        return "dict", [(_unescaped(key), child) for key, child in structure.items()]
    value = structure[tag]
    if tag == "__tuple__" and isinstance(value, list) and len(structure) == 1:
        return "tuple", [(str(i), child) for i, child in enumerate(value)]
    if (
        tag == "__node__"
        and isinstance(value, dict)
        and len(structure) == 1
        and set(value) == {"type", "children"}
    ):
        kind, children = value["type"], value["children"]
        is_class_name = (
            isinstance(kind, str) and kind.isidentifier() and kind not in ("dict", "list", "tuple")
        )
        if is_class_name and isinstance(children, dict):
            return kind, list(children.items())
    raise damaged_structure(structure)


def arrays_of(structure: Structure, path: Names = ()) -> Iterator[tuple[Names, Leaf]]:
    """Every array of a structure by name.

    Raises:
        CheckpointError: when it is not a structure.
    """
    level = parts_of(structure)
    if level is not None:
        for name, part in level[1]:
            yield from arrays_of(part, (*path, name))
    elif structure is not None:
        yield path, leaf_of(structure)


def walk(structure: Structure, path: Names = ()) -> Iterator[tuple[Names, str]]:
    """Every leaf and every container but non-empty dicts, by name and as text, to be compared."""
    level = parts_of(structure)
    if level is None:
        yield path, "None" if structure is None else structure
        return
    kind, parts = level
    if kind != "dict" or not parts:
        yield path, kind if parts else f"empty {kind}"
    for name, part in parts:
        yield from walk(part, (*path, name))


def _key_name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _escaped(key: str) -> str:
    return f"__key__{key}" if key.startswith("__") else key


def _unescaped(key: str) -> str:
    return key.removeprefix("__key__")
