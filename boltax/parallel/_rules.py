"""Which axes of the mesh divide which dimension of an array: rules, the model's names, by size.

Pure functions from paths and shapes to `PartitionSpec`s. The first of these that has a word for an
array counts: a rule of the user's, the names that the model gives its axes, the axis along which
large arrays are divided; else each device has the whole.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import jax
from jax.sharding import PartitionSpec

from boltax._base._trees import describe_leaf, path_names
from boltax._base._types import PyTree, Variables
from boltax.errors import ConfigurationError, unknown_name
from boltax.parallel._parallel import Axis, Parallel, names_in

Names: TypeAlias = tuple[str, ...]
"""The path of an array: names of the containers around it, the outermost first."""
AxisNames: TypeAlias = Mapping[Names, Sequence[Any]]
"""How a model names the axes of its variables, by their path with the collection in front."""
_MOST_PATHS = 20


def shown(names: Names) -> str:
    """A variable's path as rules see it: without the collection, for parameters."""
    return "/".join(names[1:] if names[0] == "params" else names)


class Rules:
    """The rules of a run, for the sizes of its mesh.

    Args:
        parallel: what the user asks for.
        sizes: of the axes of the mesh.
    """

    def __init__(self, parallel: Parallel, sizes: Mapping[str, int]) -> None:
        self._parallel, self._sizes = parallel, sizes
        self._patterns = [(re.compile(pattern), axes) for pattern, axes in parallel.rules]

    def of_variables(self, variables: Variables, named: AxisNames) -> list[PartitionSpec]:
        """How each variable of a model is divided, in the order of the tree's leaves.

        Args:
            variables: by collection, arrays or shapes.
            named: how the model names their axes.

        Raises:
            ConfigurationError: for a rule that finds no variable, or that does not fit one.
            UnknownNameError: for a name of the model's that no `logical_axes` knows.
        """
        leaves = [
            (path_names(path), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        ]
        used = [self._rule(shown(names)) for names, _ in leaves]
        for pattern, _ in self._patterns:
            if not any(pattern.search(shown(names)) for names, _ in leaves):
                raise self._without_match(pattern.pattern, [shown(names) for names, _ in leaves])
        return [
            self._spec(names, leaf, rule, named.get(names))
            for (names, leaf), rule in zip(leaves, used, strict=True)
        ]

    def by_size(self, shape: Sequence[int], nbytes: int) -> PartitionSpec:
        """How an array is divided of which nothing is known but its size."""
        axis = self._parallel.fsdp
        if axis is None or nbytes < self._parallel.min_shard_bytes:
            return PartitionSpec()
        fitting = [d for d, size in enumerate(shape) if size and size % self._sizes[axis] == 0]
        if not fitting:
            return PartitionSpec()
        longest = max(fitting, key=lambda d: shape[d])
        return PartitionSpec(*(None,) * longest, axis)

    def _rule(self, path: str) -> tuple[str, Sequence[Axis]] | None:
        found = (
            (pattern.pattern, axes) for pattern, axes in self._patterns if pattern.search(path)
        )
        return next(found, None)

    def _spec(
        self,
        names: Names,
        leaf: Any,
        rule: tuple[str, Sequence[Axis]] | None,
        named: Sequence[Any] | None,
    ) -> PartitionSpec:
        if rule is not None:
            pattern, axes = rule
            return self._checked(axes, names, leaf, f"the rule {pattern!r} of Parallel(rules=...)")
        if named is not None:
            axes = [self._mesh_axis(name, names) for name in named]
            if any(axis is not None for axis in axes):
                where = f"the names {tuple(named)!r} that the model gives its axes"
                return self._checked(axes, names, leaf, where)
        return self.by_size(leaf.shape, leaf.size * leaf.dtype.itemsize)

    def _mesh_axis(self, name: Any, names: Names) -> Axis:
        """What a name of the model's stands for."""
        logical = self._parallel.logical_axes
        if name is None:
            return None
        if isinstance(name, tuple | list):
            axes = [
                part
                for each in cast("Sequence[Any]", name)
                for part in names_in(self._mesh_axis(each, names))
            ]
            return tuple(axes) or None
        if logical is not None and name in logical:
            return logical[name]
        if name in self._sizes:
            return str(name)
        if logical is None:
            return None  # names of a model that nobody has spoken of divide nothing
        where = f"axis of {shown(names)}, in Parallel(logical_axes=...)"
        raise unknown_name(where, str(name), [*logical, *self._sizes])

    def _checked(self, axes: Sequence[Axis], names: Names, leaf: Any, where: str) -> PartitionSpec:
        """The axes, if they fit an array.

        Raises:
            ConfigurationError: when they are too many, or a dimension cannot be divided by them.
        """
        if len(axes) > len(leaf.shape):
            raise ConfigurationError(
                f"Received {len(axes)} axes {tuple(axes)!r} by {where} for {shown(names)}: "
                f"{describe_leaf(leaf)}; expected one for each of its {len(leaf.shape)} dimensions "
                "at most. Write fewer, or a pattern that leaves this array out."
            )
        for dimension, axis in enumerate(axes):
            parts = math.prod(self._sizes[name] for name in names_in(axis))
            if leaf.shape[dimension] % parts:
                raise ConfigurationError(
                    f"Received {shown(names)}: {describe_leaf(leaf)}, whose dimension {dimension} "
                    f"of {leaf.shape[dimension]} is to be divided by {axis!r}, {parts} parts, by "
                    f"{where}; expected a size that {parts} divides. Change that size, write None "
                    "for this dimension, or a smaller axis of the mesh."
                )
        return PartitionSpec(*axes)

    def _without_match(self, pattern: str, paths: list[str]) -> ConfigurationError:
        more = ", ..." if len(paths) > _MOST_PATHS else ""
        return ConfigurationError(
            f"Received the rule {pattern!r} in Parallel(rules=...), which finds no variable; "
            "expected a regular expression that is found in at least one of: "
            f"{', '.join(paths[:_MOST_PATHS])}{more}. Change or remove it."
        )


def specs_of_state(
    state: PyTree, variables: Variables, specs: Sequence[PartitionSpec], rules: Rules
) -> list[PartitionSpec]:
    """How each array of a state is divided: as the variable that it belongs to, or by its size.

    An array belongs to the variable whose path its own one ends with, if it has the same shape: so
    averages, momenta and the like of whatever optimizer lie as the parameters do.

    Args:
        state: arrays or shapes.
        variables: of the model, by collection.
        specs: how these are divided, in the order of their leaves.
        rules: what decides for the others.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    known = {
        (path_names(path)[1:], tuple(leaf.shape)): spec
        for (path, leaf), spec in zip(leaves, specs, strict=True)
    }

    def spec_of(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        names, shape = path_names(path), tuple(leaf.shape)
        ends = (known.get((names[first:], shape)) for first in range(len(names)))
        found = next((spec for spec in ends if spec is not None), None)
        return rules.by_size(shape, nbytes_of(leaf)) if found is None else found

    return [spec_of(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]


def nbytes_of(leaf: Any) -> int:
    """The bytes of an array or of its form; of random keys as they are stored."""
    return int(leaf.size) * int(leaf.dtype.itemsize)
