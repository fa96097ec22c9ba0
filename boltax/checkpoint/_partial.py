"""The variables of a checkpoint for a model that may be another one: some of them, under new names.

Only the arrays that are asked for are read, and none is cast or reshaped.
"""

import difflib
import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._trees import wide
from boltax._base._types import PyTree, Variables
from boltax.checkpoint._arrays import read_leaves, read_structure
from boltax.checkpoint._differences import Difference, compare, table
from boltax.checkpoint._foreign import matched, on_device
from boltax.checkpoint._leaf import Names, is_array, leaf_of
from boltax.checkpoint._orbax import ON_HOST
from boltax.checkpoint._rules import Rule
from boltax.checkpoint._rundir import locate
from boltax.checkpoint._sources import Source, open_foreign
from boltax.checkpoint._step_folders import Saved, StepFolders, folders_in
from boltax.checkpoint._structure import children_of, rebuilt, structure_of, walk
from boltax.errors import CheckpointError, ConfigurationError, unknown_name
from boltax.models._lora import BASE


def load_variables(
    checkpoint: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    like: Variables,
    *,
    only: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    partial: bool = False,
    rules: Sequence[Rule] | None = None,
) -> tuple[Variables, list[Difference]]:
    """Loads the variables of a checkpoint, or weights from elsewhere, into those of a model.

    Args:
        checkpoint: a run's folder, for its best model, or the folder of any checkpoint in it; a
            safetensors file, its index where it is in several, or the folder of these; a folder in
            which orbax has stored a tree of arrays. Of a list of them, the equal mean is loaded.
        like: the model's variables by collection, arrays or `jax.ShapeDtypeStruct`; what is loaded
            is placed as they are.
        only: the collections to load, e.g. ``("params",)``; by default all.
        rename: names inside a collection to be replaced before the comparison, ``{"encoder":
            "backbone/encoder"}``; each stands for all below it, and the longest one that fits
            counts.
        partial: take what fits, and leave the rest as it is in `like`.
        rules: how weights from elsewhere are named and laid out, ``[(pattern, template, how)]``;
            see `TrainerModule.load_weights`.

    Returns:
        The variables, and what did not fit; nothing unless `partial`.

    Raises:
        CheckpointError: when there is no good checkpoint, or without `partial`, when anything
            differs: missing, unexpected, of another shape or dtype. The message holds a table.
        UnknownNameError: for a name in `only` or `rename` that the checkpoint does not have.

    Example:
        >>> import numpy as np
        >>> from boltax.checkpoint import BestCheckpoints, RunDirectory
        >>> saved = {"params": {"encoder": {"w": np.ones(3, np.float32)}}}
        >>> BestCheckpoints(RunDirectory("run").best).save(100, saved, {})
        >>> like = {"params": {"net": {"w": np.zeros(3, np.float32)}}}
        >>> variables, differences = load_variables("run", like, rename={"encoder": "net"})
        >>> variables["params"]["net"]["w"].tolist(), differences
        ([1.0, 1.0, 1.0], [])
    """
    if isinstance(checkpoint, list | tuple):
        each: list[Any] = list(checkpoint)
        load = functools.partial(
            load_variables, like=like, only=only, rename=rename, partial=partial, rules=rules
        )
        return _mean([load(one) for one in each])
    checkpoint = cast("str | os.PathLike[str]", checkpoint)
    source = open_foreign(checkpoint)
    if source is None and rules is not None:
        source = _own_source(checkpoint)
    if BASE in like and not _holds_base(checkpoint, source):
        # weights of the model itself, for one that trains low-rank pairs beside them
        own = {name: value for name, value in like.items() if name != BASE}
        variables, found = load_variables(
            checkpoint,
            {**own, "params": like[BASE]},
            only=only,
            rename=rename,
            partial=partial,
            rules=rules,
        )
        return {**variables, "params": like["params"], BASE: variables["params"]}, found
    if source is not None:
        _check_no_rename(rename)
        arrays, found = matched(source, like, rules, only=only, partial=partial)
        return _filled(like, arrays, ()), found
    folders, saved = open_checkpoint(checkpoint)
    texts = {n: text for n, text in walk(read_structure(saved.folder)) if is_array(text)}
    stored = {name: n for n in texts if (name := variable_name(n, folders))}
    stored = _renamed(_selected(stored, only), rename or {})
    shapes = {_path(n): text for n, text in walk(structure_of(like)) if is_array(text)}
    wanted = {name: shapes[name] for name in _selected(shapes, only, stored)}
    found = compare({name: texts[n] for name, n in stored.items()}, wanted)
    if found and not partial:
        raise CheckpointError(
            f"Received the checkpoint {saved.folder}, which does not fit the model; expected the "
            f"same names, shapes and dtypes:\n{table(found)}\n"
            "Write partial=True to load what fits, only=(...) for some collections, or rename="
            "{'saved name': 'model name'}."
        )
    fitting = {name: n for name, n in stored.items() if wanted.get(name) == texts[n]}
    shardings = dict(_shardings(like))
    arrays = read_leaves(
        saved.folder / folders.arrays,
        {n: leaf_of(texts[n]) for n in fitting.values()},
        {n: shardings[name] for name, n in fitting.items()},
    )
    return _filled(like, {name: arrays[n] for name, n in fitting.items()}, ()), found


def _mean(loaded: list[tuple[Variables, list[Difference]]]) -> tuple[Variables, list[Difference]]:
    """The equal mean of several checkpoints; arrays of whole numbers are those of the last."""
    if not loaded:
        raise CheckpointError(
            "Received an empty list of checkpoints; expected one at least. Write the folders of "
            "those to average, such as checkpoints/best/100 and checkpoints/best/200."
        )

    def mean(*leaves: Any) -> Any:
        last = leaves[-1]
        if not jnp.issubdtype(last.dtype, jnp.inexact):
            return last
        total = functools.reduce(jnp.add, (leaf.astype(wide(leaf.dtype)) for leaf in leaves))
        return (total / len(leaves)).astype(last.dtype)

    found = {repr(difference): difference for _, each in loaded for difference in each}
    with jax.transfer_guard("allow"):
        return jax.tree.map(mean, *(variables for variables, _ in loaded)), list(found.values())


def _own_source(checkpoint: str | os.PathLike[str]) -> Source:
    """A checkpoint of boltax as a source, whose names are ``"params/Dense_0/kernel"``."""
    folders, saved = open_checkpoint(checkpoint)
    texts = {n: text for n, text in walk(read_structure(saved.folder)) if is_array(text)}
    stored = {"/".join(name): n for n in texts if (name := variable_name(n, folders))}

    def read(names: Collection[str]) -> dict[str, Any]:
        leaves = {stored[name]: leaf_of(texts[stored[name]]) for name in names}
        places = dict.fromkeys(leaves, ON_HOST)
        arrays = read_leaves(saved.folder / folders.arrays, leaves, places)
        return {name: arrays[stored[name]] for name in names}

    return Source(saved.folder, {name: texts[n] for name, n in stored.items()}, read)


def _holds_base(checkpoint: str | os.PathLike[str], source: Source | None) -> bool:
    """Whether a checkpoint is one of a model with low-rank pairs."""
    if source is not None:
        return any(name.startswith(f"{BASE}/") for name in source.texts)
    folders, saved = open_checkpoint(checkpoint)
    stored = walk(read_structure(saved.folder))
    names = (variable_name(n, folders) for n, text in stored if is_array(text))
    return any(name is not None and name[0] == BASE for name in names)


def _check_no_rename(rename: Mapping[str, str] | None) -> None:
    if rename:
        raise ConfigurationError(
            f"Received rename={dict(rename)!r} for weights from elsewhere, or beside rules; "
            'expected rules alone. Write rules=[(r"encoder\\.(.*)", r"backbone/\\1"), ...].'
        )


def open_checkpoint(checkpoint: str | os.PathLike[str]) -> tuple[StepFolders, Saved]:
    """The newest good checkpoint of a run's best models, or the one that is named.

    Raises:
        CheckpointError: when there is none, or it is damaged.
    """
    _, directory, step = locate(checkpoint)
    folders = folders_in(directory)
    saved = folders.find(step)
    if saved is None:
        steps = ", ".join(str(each.step) for each in folders.saved())
        raise CheckpointError(
            f"Received {os.fspath(checkpoint)!r}, but {directory} holds "
            f"{f'only the steps {steps}' if steps else 'no checkpoint'}; expected the folder of a "
            "run (trainer.log_dir) with a best model, or of one checkpoint, "
            "'<run>/checkpoints/resume/<step>'. The command `boltax checkpoints <run>` lists them."
        )
    return folders, saved


def variable_name(names: Names, folders: StepFolders) -> Names | None:
    """Collection and path of a stored array; None for what is no variable of the model."""
    if folders.content == "progress":
        if names[:1] != ("state",) or names[1] not in ("params", "batch_stats", "collections"):
            return None
        names = names[2:] if names[1] == "collections" else names[1:]
    return _path(names)


def _path(names: Names) -> Names:
    return names[0], "/".join(names[1:])


def _selected(
    names: Mapping[Names, Any], only: Collection[str] | None, known: Collection[Names] | None = None
) -> dict[Names, Any]:
    """The variables of the collections in `only`, each of which has to be known."""
    if only is None:
        return dict(names)
    collections = {collection for collection, _ in (names if known is None else known)}
    wanted = {only} if isinstance(only, str) else set(only)
    if unknown := sorted(wanted - collections):
        raise unknown_name("collection", unknown[0], collections)
    return {name: value for name, value in names.items() if name[0] in wanted}


def _renamed(stored: Mapping[Names, Names], rename: Mapping[str, str]) -> dict[Names, Names]:
    known = {prefix for _, path in stored for prefix in _prefixes(path)}
    for source in rename:
        if source not in known:
            near = difflib.get_close_matches(source, known, n=3)
            tops = {prefix for prefix in known if prefix and "/" not in prefix}
            raise unknown_name("name to rename", source, {*tops, *near})
    renamed: dict[Names, Names] = {}
    for (collection, saved), names in stored.items():
        source = max((p for p in _prefixes(saved) if p in rename), key=len, default="")
        parts = (rename.get(source, source), saved.removeprefix(source).strip("/"))
        path = "/".join(part for part in parts if part)
        if (collection, path) in renamed:
            raise ConfigurationError(
                f"Received rename={dict(rename)!r}, with which two arrays of the checkpoint are "
                f"named {collection}/{path}; expected a name for each. Rename the other one too."
            )
        renamed[collection, path] = names
    return renamed


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(len(parts) + 1)]


def _shardings(like: PyTree, names: Names = ()) -> Iterator[tuple[Names, Any]]:
    level = children_of(like)
    if level is None:
        yield _path(names), getattr(like, "sharding", None)
        return
    for name, child in level[1]:
        yield from _shardings(child, (*names, name))


def _filled(like: PyTree, arrays: Mapping[Names, Any], names: Names) -> PyTree:
    """A tree with some of its arrays replaced."""
    level = children_of(like)
    if level is None:
        new = arrays.get(_path(names), like)
        return on_device(new, like) if isinstance(new, np.ndarray) else new
    return rebuilt(like, {name: _filled(child, arrays, (*names, name)) for name, child in level[1]})
