"""An NNX module taken apart once: its static graph, and where each array is among the variables.

Splitting and merging a graph is Python work. It happens here, while a step is traced, and never as
a step runs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from boltax._base._trees import path_names
from boltax._base._types import Variables
from boltax.errors import ModelError
from boltax.models._collections import CALL_ONLY, PARAMS, put, strong, take

ARRAYS = "arrays"
"""The collection of arrays that are plain attributes, held by no `nnx.Variable`."""

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Slot:
    """One leaf of a module's state: where it is in the graph, and where it is among the variables.

    Attributes:
        path: place in the graph; list indices are ints.
        collection: name of the collection, None for random state, which is no variable.
        places: path within the collection of each array of the leaf; one of them, unless its value
            is a pytree.
        treedef: structure of the value.
        shape: shape of a random key or count; they have one axis per `nnx.vmap`.
        stream: name of the random stream, empty for other leaves.
        is_key: whether it is a stream's key, not its count.
        axes: how the leaf names its axes; None when it does not.
    """

    path: Path
    collection: str | None
    places: tuple[tuple[str, ...], ...]
    treedef: Any
    shape: tuple[int, ...] = ()
    stream: str = ""
    is_key: bool = False
    axes: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Template:
    """What is static of an NNX module.

    Attributes:
        name: the module's, for messages.
        graphdef: Flax's description of the graph.
        slots: its leaves, in Flax's order.
    """

    name: str
    graphdef: Any
    slots: tuple[Slot, ...]

    @property
    def axis_names(self) -> dict[tuple[str, ...], tuple[Any, ...]]:
        """How the module names the axes of its variables, by path with the collection."""
        return {
            (slot.collection, *place): slot.axes
            for slot in self.slots
            if slot.collection is not None and slot.axes is not None
            for place in slot.places
        }

    def variables(self, module: nnx.Module) -> Variables:
        """The variables of a module with the graph of this one, as plain dicts."""
        leaves = _leaves(module)
        missing = [slot.path for slot in self.slots if slot.path not in leaves]
        if missing:
            raise ModelError(
                f"Received {self.name} without {_dotted(missing[0])} after a call; expected the "
                "variables that its constructor makes. Change their values, and neither delete nor "
                "replace them by other types."
            )
        variables: Variables = {PARAMS: {}}
        for slot in self.slots:
            if slot.collection is not None:
                collection = variables.setdefault(slot.collection, {})
                values = slot.treedef.flatten_up_to(_value(leaves[slot.path]))
                for place, value in zip(slot.places, values, strict=True):
                    put(collection, place, strong(value))
        return variables

    def extra(self, module: nnx.Module, allowed: Callable[[str], bool]) -> Variables:
        """The values that a call added to a module, by collection, random state left out.

        Args:
            module: the module after the call.
            allowed: whether the caller asked for a collection.

        Raises:
            ModelError: when there is one that is neither asked for nor made to last one call only.
        """
        known, found = {slot.path for slot in self.slots}, dict[str, Any]()
        for path, leaf in _leaves(module).items():
            name = None if path in known else _collection(leaf)
            if name is None:
                continue
            if not allowed(name) and name not in CALL_ONLY:
                raise ModelError(
                    f"Received {self.name} with {_dotted(path)} ({type(leaf).__name__}), which a "
                    "call added; expected every variable to be made by the constructor, since "
                    "later ones cannot be carried from step to step. Create it in __init__, or "
                    "write self.sow(nnx.Intermediate, ...) for a value of one call."
                )
            put(found.setdefault(name, {}), [str(key) for key in path], _value(leaf))
        return found

    def module(self, variables: Mapping[str, Any], keys: Callable[[str], jax.Array]) -> Any:
        """A new module with the given variables, whose random streams start from `keys`.

        Args:
            variables: by collection.
            keys: gives the key of a named stream; each stream of the module gets a key of its own.
        """
        leaves = [self._leaf(i, slot, variables, keys) for i, slot in enumerate(self.slots)]
        return nnx.merge(self.graphdef, leaves)

    def _leaf(
        self, index: int, slot: Slot, variables: Mapping[str, Any], keys: Callable[[str], jax.Array]
    ) -> Any:
        if slot.collection is not None:
            places = [(slot.collection, *place) for place in slot.places]
            return slot.treedef.unflatten([take(variables, place, self.name) for place in places])
        if not slot.is_key:
            return jnp.zeros(slot.shape, jnp.uint32)
        key = jax.random.fold_in(keys(slot.stream), index)
        return jax.random.split(key, slot.shape) if slot.shape else key


def make_template(name: str, build: Callable[[], nnx.Module]) -> tuple[Template, Any]:
    """The template of the module that `build` makes, and that module with shapes for arrays."""
    found = list[Template]()

    def trace() -> list[Any]:
        module = build()
        graphdef, _ = nnx.split(module)
        leaves = _leaves(module)
        slots = tuple(_slot(path, leaf) for path, leaf in leaves.items())
        found.append(Template(name, graphdef, slots))
        return [_value(leaf) for leaf in leaves.values()]

    values = jax.eval_shape(trace)
    template = found[0]
    return template, nnx.merge(template.graphdef, list(values))


def mark_arrays(module: nnx.Module) -> nnx.Module:
    """Declares arrays that are plain attributes to be data.

    Flax does so by itself for arrays, but not for traced ones, which would end up in the static
    graph. Modules are built while tracing.
    """
    for _, node in nnx.iter_graph(module):
        if not isinstance(node, nnx.Pytree):
            continue
        for attribute, value in list(vars(node).items()):
            if attribute.startswith("_pytree__") or isinstance(value, nnx.Variable | nnx.Pytree):
                continue
            if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value)):
                setattr(node, attribute, nnx.data(value))
    return module


def _leaves(module: nnx.Module) -> dict[Path, Any]:
    """The leaves of a module's state by path, in the order in which `nnx.merge` takes them."""
    _, state = nnx.split(module)
    return dict(sorted(nnx.to_flat_state(state), key=lambda item: item[0]))


def _slot(path: Path, leaf: Any) -> Slot:
    value = _value(leaf)
    if isinstance(leaf, nnx.RngState):
        is_key = isinstance(leaf, nnx.RngKey)
        return Slot(path, None, (), None, jnp.shape(value), leaf.get_metadata("tag"), is_key)
    inner, treedef = jax.tree_util.tree_flatten_with_path(value)
    places = tuple((*(str(key) for key in path), *path_names(keys)) for keys, _ in inner)
    return Slot(path, _collection(leaf), places, treedef, axes=_axes(leaf))


def _axes(leaf: Any) -> tuple[Any, ...] | None:
    """The axis names of ``nnx.with_partitioning``, under the keys of Flax's versions."""
    if not isinstance(leaf, nnx.Variable):
        return None
    metadata: Mapping[str, Any] = leaf.get_metadata()
    found = (metadata.get(key) for key in ("out_sharding", "sharding_names", "sharding"))
    axes = next((names for names in found if names is not None), None)
    return None if axes is None else tuple(axes)


def _collection(leaf: Any) -> str | None:
    """The name of the collection that a leaf of an NNX state belongs to; None for random state."""
    if not isinstance(leaf, nnx.Variable):
        return ARRAYS
    kind = type(leaf)
    if issubclass(kind, nnx.RngState):
        return None
    for base, name in ((nnx.Param, PARAMS), (nnx.BatchStat, "batch_stats")):
        if issubclass(kind, base):
            return name
    try:
        return nnx.variable_name_from_type(kind)
    except ValueError:  # not registered
        is_intermediate = issubclass(kind, nnx.Intermediate)
        return "intermediates" if is_intermediate else _snake_case(kind.__name__)


def _value(leaf: Any) -> Any:
    return leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _dotted(path: Path) -> str:
    return ".".join(str(key) for key in path)
