"""Weights from elsewhere for a model: names by rules, layouts by rules, and no silent cast."""

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from boltax._base._types import Variables
from boltax.checkpoint._differences import Difference, compare, table
from boltax.checkpoint._leaf import Names, is_array, leaf_of
from boltax.checkpoint._rules import Target, parse_rules, targets
from boltax.checkpoint._sources import Source
from boltax.checkpoint._structure import structure_of, walk
from boltax.errors import CheckpointError

_NOTHING = "-"


def matched(
    source: Source,
    like: Variables,
    rules: Any,
    *,
    only: Collection[str] | None = None,
    partial: bool = False,
) -> tuple[dict[Names, np.ndarray], list[Difference]]:
    """The arrays of a source that a model takes, by collection and path, and what differs.

    Args:
        source: where they are.
        like: the model's variables by collection, arrays or `jax.ShapeDtypeStruct`.
        rules: see `boltax.checkpoint._rules.parse_rules`; None for names as they are.
        only: collections to load; None for all.
        partial: take what fits.

    Raises:
        CheckpointError: without `partial`, when anything differs, with a table; and always when no
            name fits.
    """
    found = targets(source.texts.keys(), parse_rules(rules or ()))
    placed: dict[Names, Target] = {_place(name, like): target for name, target in found.items()}
    wanted: dict[Names, str] = {
        (names[0], "/".join(names[1:])): text
        for names, text in walk(structure_of(like))
        if is_array(text) and (only is None or names[0] in only)
    }
    if only is not None:
        placed = {names: target for names, target in placed.items() if names[0] in only}
    common = {names: placed[names] for names in placed if names in wanted}
    if not common:
        raise _nothing_fits(source, placed, wanted)
    stored = source.read({target.stored for target in common.values()})
    arrays = {
        names: target.laid_out(stored[target.stored], leaf_of(wanted[names]).shape)
        for names, target in common.items()
    }
    texts = {names: source.texts[target.stored] for names, target in placed.items()}
    texts |= {names: _text(array) for names, array in arrays.items()}
    differences = compare(texts, wanted)
    if differences and not partial:
        raise CheckpointError(
            f"Received {source.place}, which does not fit the model; expected the same names, "
            f"shapes and dtypes, after the rules:\n{table(differences)}\n"
            'Write rules=[(r"(.*)\\.weight", r"\\1/kernel", "linear"), ...], which end with None '
            'for what is to be left out and with "float32" for another dtype, or partial=True to '
            "load what fits."
        )
    return {n: array for n, array in arrays.items() if texts[n] == wanted[n]}, differences


def on_device(array: np.ndarray, like: Any) -> jax.Array:
    """An array where the model has it."""
    return jax.device_put(np.ascontiguousarray(array), getattr(like, "sharding", None))


def _place(name: str, collections: Mapping[str, Any]) -> Names:
    """Collection and path of a name, whose parts are divided by slashes, or else by dots."""
    parts = name.split("/" if "/" in name else ".")
    if parts[0] in collections and len(parts) > 1:
        return parts[0], "/".join(parts[1:])
    return "params", "/".join(parts)


def _text(array: np.ndarray) -> str:
    return f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"


def _nothing_fits(
    source: Source, placed: Mapping[Names, Target], wanted: Mapping[Names, str]
) -> CheckpointError:
    """The error for names of which the model has none: some of each, the most alike first."""
    stored = [target.stored for target in placed.values()]
    paths = ["/".join(names) for names in wanted]

    def alike(name: str) -> float:
        ratios = (difflib.SequenceMatcher(None, name, path).ratio() for path in paths[:50])
        return max(ratios, default=0.0)

    few = sorted(stored[:50], key=alike, reverse=True)[:5]
    size = sum(math.prod(leaf_of(text).shape) for text in wanted.values())
    return CheckpointError(
        f"Received {source.place} with {len(stored)} arrays, none of which has a name of the "
        f"model's: {', '.join(few) or _NOTHING}. Expected names of its {len(paths)} arrays "
        f"({size:,} numbers): {', '.join(paths[:5])}. Write rules=[(pattern, template), ...] that "
        "make the ones of the others."
    )
