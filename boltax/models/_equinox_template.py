"""An Equinox module taken apart once: what is static, and where each array is among the variables.

It happens while a step is traced, and never as a step runs.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._trees import path_names
from boltax._base._types import Variables
from boltax.errors import ModelError
from boltax.models._collections import PARAMS, put, strong, take

ARRAYS = "arrays"
"""The collection of arrays that are no floating-point numbers, so that nothing trains them."""
STATE = "state"
"""The collection of what `eqx.nn.State` holds, BatchNorm's moving averages aside."""


@dataclass(frozen=True)
class Slot:
    """One array: which leaf it is, and where it is among the variables.

    Attributes:
        leaf: its number among the leaves of the module, or of its state.
        collection: name of the collection.
        path: names within it.
    """

    leaf: int
    collection: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """What is static of an Equinox module and of its state.

    Attributes:
        name: the module's, for messages.
        treedef: the structure of the module.
        training: the leaves of a module that trains, None in the places of arrays.
        evaluating: those of a module in inference mode.
        slots: its arrays.
        state_treedef: the structure of its `eqx.nn.State`.
        state_slots: the arrays of that.
    """

    name: str
    treedef: Any
    training: tuple[Any, ...]
    evaluating: tuple[Any, ...]
    slots: tuple[Slot, ...]
    state_treedef: Any
    state_slots: tuple[Slot, ...]

    @property
    def has_state(self) -> bool:
        """Whether the module keeps state."""
        return bool(self.state_slots)

    def variables(self, module: Any, state: Any) -> Variables:
        """The variables of a module with the structure of this one, as plain dicts."""
        variables: Variables = {PARAMS: {}}
        _collect(variables, self.slots, jax.tree.leaves(module))
        return variables | self.state_variables(state)

    def state_variables(self, state: Any) -> Variables:
        """The collections that a state holds.

        Raises:
            ModelError: when it is not the state of the whole model.
        """
        if jax.tree.structure(state) != self.state_treedef:
            raise ModelError(
                f"Received {state!r} from {self.name}; expected the eqx.nn.State of the whole "
                "model. Return the state that the last layer gave back, and state.update(part) "
                "for one that is a part of it."
            )
        variables: Variables = {}
        _collect(variables, self.state_slots, jax.tree.leaves(state))
        return variables

    def module(self, variables: Mapping[str, Any], *, train: bool) -> Any:
        """The module with the given variables."""
        leaves = self.training if train else self.evaluating
        return self.treedef.unflatten(self._filled(leaves, self.slots, variables))

    def state(self, variables: Mapping[str, Any]) -> Any:
        """The `eqx.nn.State` with the given variables."""
        leaves = [None] * len(self.state_slots)
        return self.state_treedef.unflatten(self._filled(leaves, self.state_slots, variables))

    def _filled(
        self, leaves: Sequence[Any], slots: tuple[Slot, ...], variables: Mapping[str, Any]
    ) -> list[Any]:
        filled = list(leaves)
        for slot in slots:
            filled[slot.leaf] = take(variables, (slot.collection, *slot.path), self.name)
        return filled


def make_template(name: str, build: Callable[[], tuple[Any, Any]]) -> tuple[Template, Any]:
    """The template of the module that `build` makes, and that module with shapes for arrays.

    Raises:
        ModelError: when an array of the module is a static field.
    """
    found = list[Template]()

    def trace() -> list[Any]:
        module, state = build()
        for place, value in _static_arrays(module, ()):
            raise _static(name, place, value)
        placed, treedef = jax.tree_util.tree_flatten_with_path(module)
        slots = tuple(
            Slot(n, PARAMS if eqx.is_inexact_array(leaf) else ARRAYS, path_names(path))
            for n, (path, leaf) in enumerate(placed)
            if eqx.is_array(leaf)
        )
        leaves = jax.tree.leaves(module)
        found.append(
            Template(
                name,
                treedef,
                _without_arrays(leaves),
                _without_arrays(jax.tree.leaves(eqx.nn.inference_mode(module))),
                slots,
                jax.tree.structure(state),
                tuple(_state_slots(module, state)),
            )
        )
        return [leaf for leaf in leaves if eqx.is_array(leaf)]

    shapes = iter(jax.eval_shape(trace))
    template = found[0]
    arrays = {slot.leaf: next(shapes) for slot in template.slots}
    leaves = [arrays.get(n, leaf) for n, leaf in enumerate(template.training)]
    return template, template.treedef.unflatten(leaves)


def build_module(make: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """A module and its state, of a class or function that may give both; traced."""
    with warnings.catch_warnings():
        # A static array is an error of boltax's, which says which field it is.
        warnings.filterwarnings("ignore", r"A JAX array is being set as static")
        made = make(**arguments)
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], eqx.nn.State):
            return made
        return eqx.nn.make_with_state(lambda: made)()


def modules_in(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every module in a tree with its path, each before those within it."""
    if isinstance(node, eqx.Module):
        yield path, node
    inner, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda leaf: leaf is not node)
    for keys, child in inner:
        if keys:  # a leaf is its own and only child
            yield from modules_in(child, (*path, *path_names(keys)))


def _collect(variables: Variables, slots: tuple[Slot, ...], leaves: list[Any]) -> None:
    for slot in slots:
        put(variables.setdefault(slot.collection, {}), slot.path, strong(leaves[slot.leaf]))


def _without_arrays(leaves: list[Any]) -> tuple[Any, ...]:
    return tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)


def _state_slots(module: Any, state: Any) -> Iterator[Slot]:
    """Where each array of a state is, by the path of the index that the module has for it."""
    leaves, treedef = jax.tree.flatten(state)
    numbers = treedef.unflatten([np.int32(n) for n in range(len(leaves))])
    averages, seen = _averages(module), set[int]()
    indices, _ = jax.tree_util.tree_flatten_with_path(module, is_leaf=_is_index)
    for path, index in indices:
        if not _is_index(index):
            continue
        collection = "batch_stats" if index.marker in averages else STATE
        for inner, number in jax.tree_util.tree_leaves_with_path(numbers.get(index)):
            if int(number) not in seen:
                seen.add(int(number))
                yield Slot(int(number), collection, path_names((*path, *inner)))


def _averages(module: Any) -> set[Any]:
    """The indices of BatchNorm's moving averages, which may be averaged once more.

    Those of ``mode="batch"`` are not: they count from zero, and are divided by their number.
    """
    norms = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, eqx.nn.BatchNorm))
    return {
        index.marker
        for norm in norms
        if isinstance(norm, eqx.nn.BatchNorm) and norm.mode == "ema"
        for index in jax.tree.leaves(norm, is_leaf=_is_index)
        if _is_index(index)
    }


def _is_index(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)


def _static_arrays(module: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The static fields of a module and of those within it that hold arrays."""
    for place, part in modules_in(module, path):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name, None)
            if field.metadata.get("static", False) and any(
                isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value)
            ):
                yield ".".join((*place, field.name)), value


def _static(name: str, place: str, value: Any) -> ModelError:
    shapes = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(value)]
    return ModelError(
        f"Received {name} of Equinox, whose static field {place} holds an array "
        f"({', '.join(shapes)}); expected arrays in fields that are not static: those of static "
        "ones are not trained, stored or loaded. Leave out eqx.field(static=True), and write "
        f'freeze="{place.replace(".", "/")}" in optimizer_hparams where it is not to be trained.'
    )
