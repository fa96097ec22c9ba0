"""The rows of members on the devices: moved between groups, and given the batches that they need.

Members lie in groups, each on one place: a device, or a part of a mesh. A group of one member is
its tree as in a single run; a group of more is one tree whose arrays have a first axis, the
members. A *row* is where a member lies, counted over all groups; the last group is filled up with
copies that nobody looks at.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from boltax._base import _chunks
from boltax._base._chunks import Chunk
from boltax._base._types import PyTree
from boltax._step._steps import compile_members
from boltax.parallel._places import Place, on_place


class MemberRows:
    """Moves rows between groups, on the devices."""

    def __init__(self) -> None:
        self._do = compile_members()

    def rearranged(
        self,
        groups: Sequence[PyTree],
        size: int,
        rows: Sequence[int],
        new_size: int,
        places: Sequence[Place],
        *,
        fresh: Sequence[PyTree] = (),
    ) -> list[PyTree]:
        """New groups of some of the rows, in another order or more than once.

        Args:
            groups: the groups as they are.
            size: their members.
            rows: which rows, those of `fresh` counted behind the others.
            new_size: members of the new groups.
            places: on which they lie, one after the other and again from the first.
            fresh: trees of one member each.
        """
        with jax.transfer_guard("allow"):
            if size == new_size == 1:
                new = self._picked([*groups, *fresh], rows)
                return [on_place(*pair) for pair in zip(new, itertools.cycle(places))]
            held = [(tree, size) for tree in groups] if size > 1 else self._stacked(groups)
            pieces = held + self._stacked(fresh)
            filled = [*rows, *(rows[0],) * (-len(rows) % new_size)]
            parts = [filled[i : i + new_size] for i in range(0, len(filled), new_size)]
            gathered = [
                self._gathered(pieces, part, place)
                for part, place in zip(parts, itertools.cycle(places))
            ]
            return [self._do.one(tree, np.int32(0)) if new_size == 1 else tree for tree in gathered]

    def row(self, groups: Sequence[PyTree], size: int, row: int) -> PyTree:
        """A copy of one row, as the tree of one member, where it lies."""
        if size == 1:
            return self._do.copy(groups[row])
        with jax.transfer_guard("allow"):
            return self._do.one(groups[row // size], np.int32(row % size))

    def copy(self, tree: PyTree) -> PyTree:
        """A copy of a group in memory of its own."""
        return self._do.copy(tree)

    def chosen(self, are_new: Sequence[bool], new: PyTree, old: PyTree, size: int) -> PyTree:
        """A group with the rows of `new` where it says so; takes the memory of `old`."""
        condition = np.asarray(are_new[0] if size == 1 else are_new, np.bool_)
        with jax.transfer_guard("allow"):
            return self._do.choose(condition, new, old)

    def _stacked(self, trees: Sequence[PyTree]) -> list[tuple[PyTree, int]]:
        return [(self._do.stack(tree), 1) for tree in trees]

    def _gathered(
        self, pieces: Sequence[tuple[PyTree, int]], rows: Sequence[int], place: Place
    ) -> PyTree:
        """Some rows on a place, which gets the pieces that hold them, and no others.

        Args:
            pieces: trees with their number of rows, in the order of the rows.
            rows: which rows.
            place: where they go.
        """
        starts = [0, *itertools.accumulate(number for _, number in pieces)]
        held = [next(i for i in range(len(pieces)) if row < starts[i + 1]) for row in rows]
        used = list(dict.fromkeys(held))
        sizes = [pieces[piece][1] for piece in used]
        first = dict(zip(used, itertools.accumulate(sizes, initial=0), strict=False))
        index = [first[i] + row - starts[i] for i, row in zip(held, rows, strict=True)]
        trees = tuple(on_place(pieces[piece][0], place) for piece in used)
        return self._do.gather(trees, np.asarray(index, np.int32))

    def _picked(self, trees: Sequence[PyTree], rows: Sequence[int]) -> list[PyTree]:
        used: set[int] = set()
        picked: list[PyTree] = []
        for row in rows:  # a step takes the memory of its state, so no two rows may share it
            picked.append(self._do.copy(trees[row]) if row in used else trees[row])
            used.add(row)
        return picked


class Batches:
    """Puts batches on the places of a population; a whole data set goes to each of them once."""

    def __init__(self) -> None:
        self._sets: list[tuple[Any, Place, Any]] = []

    def on(self, chunk: Chunk, place: Place) -> Chunk:
        """The chunk with its batches on a place."""

        def put(part: Any) -> Any:
            if not isinstance(part, _chunks.Rows):
                return _moved(part, place)
            order, first = (_moved(leaf, place) for leaf in (part.order, part.first))
            arrays = self._set(part.arrays, place)
            return replace(part, arrays=arrays, order=order, first=first)

        feed = jax.tree.map(put, chunk.feed, is_leaf=lambda x: isinstance(x, _chunks.Rows))
        return replace(chunk, feed=feed)

    def _set(self, arrays: PyTree, place: Place) -> PyTree:
        for known, where, copies in self._sets:
            if known is arrays and where == place:
                return copies
        copies = jax.tree.map(lambda leaf: _moved(leaf, place), arrays)
        self._sets.append((arrays, place, copies))
        return copies


def _moved(leaf: Any, place: Place) -> Any:
    """An array on a place; one on the host stays there, where a compiled step takes it from."""
    return on_place(leaf, place) if isinstance(leaf, jax.Array) else leaf
