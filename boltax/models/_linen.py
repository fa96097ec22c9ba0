"""Flax Linen behind the adapter interface: variables go through `flax.core.apply`."""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from flax import errors as flax_errors
from flax.core import DenyList, apply, meta, unbox, unfreeze
from flax.core.scope import in_filter, union_filters
from flax.linen.summary import tabulate

from boltax._base._trees import path_names
from boltax._base._types import Variables
from boltax.models._bound import BoundModel
from boltax.models._calls import (
    Call,
    Method,
    mode_values,
    select_method,
    takes_mode,
    trace_abstractly,
    with_mode,
)
from boltax.models._collections import CALL_ONLY, PARAMS, settled, strong
from boltax.parallel._rules import AxisNames, Names


class LinenAdapter:
    """A Linen module as boltax calls it; see `ModelAdapter`.

    Args:
        module: the module.
        given: names of the fields that the user chose.
        rng_streams: names of random streams beside ``params`` and ``dropout``. One that is not
            named here works too: Linen draws it from ``params``.
    """

    def __init__(
        self, module: nn.Module, *, given: Sequence[str] = (), rng_streams: Sequence[str] = ()
    ) -> None:
        self.model = module
        self.name = type(module).__name__
        self.apply_fn: Callable[..., Any] = module.apply
        self._names: dict[Names, Sequence[Any]] = {}
        self.axis_names: AxisNames = self._names
        self._streams = tuple(dict.fromkeys(("params", "dropout", *rng_streams)))
        self._mode_fields = _mode_fields(module, given)

    def empty(self, key: jax.Array) -> Variables:
        """No variables: Linen makes them as the model is called. See `ModelAdapter.empty`."""
        return {}

    def apply(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        train: bool,
        keys: Callable[[str], jax.Array],
        method: Method = None,
        initializing: bool = False,
        mutable: Any = None,
    ) -> tuple[Any, Variables]:
        """Calls the module. See `ModelAdapter.apply`."""
        call = Call(args, dict(kwargs), method)
        ours: Any = self._changing(variables, train=train, initializing=initializing)
        asked = mutable or ()
        filters = union_filters(ours, asked)
        outputs, changed = self._run(
            variables, call, filters, train=train, keys=keys, initializing=initializing
        )
        extra = {name: value for name, value in changed.items() if in_filter(asked, name)}
        if initializing:
            kept = self._created(changed, call, keys)
        elif mutable is False:
            kept = {}
        else:
            names = changed.keys() & variables.keys() - {PARAMS}
            before = unfreeze(dict(variables))
            kept = {name: settled(name, before[name], changed[name], self.name) for name in names}
        return (outputs, extra) if mutable else outputs, {**variables, **kept}

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> BoundModel:
        """The module with its variables. See `ModelAdapter.bind`."""
        bound = self._module(train=False).bind(variables, rngs=dict(rngs) if rngs else None)
        return BoundModel(bound, nn.Module)

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """Flax's table of the modules that the calls reach. See `ModelAdapter.tabulate`."""
        module, text = self._module(train=True), list[str]()

        def run(calls: list[Call]) -> None:
            def all_calls(module: nn.Module) -> None:
                for call in calls:
                    _call(module, call, train=True)

            key = jax.random.key(0)
            table = tabulate(
                module,
                dict.fromkeys(self._streams, key),
                depth=depth,
                console_kwargs=console,
                method=all_calls,
            )
            text.append(table())

        trace_abstractly(run, list(calls))
        return text[0]

    def _run(
        self,
        variables: Variables,
        call: Call,
        mutable: Any,
        *,
        train: bool,
        keys: Callable[[str], jax.Array],
        initializing: bool,
    ) -> tuple[Any, Variables]:
        """`Module.apply`, and two things that it has no argument for.

        It initialises on top of variables that exist, and it looks the method up on the bound
        module, whose submodules are there.
        """
        module = self._module(train=train)

        def scoped(scope: Any) -> Any:
            return _call(module.clone(parent=scope, _deep_clone=True), call, train=train)

        # Without a dropout stream, modules that ask has_rng("dropout") evaluate too.
        streams = [name for name in self._streams if train or name != "dropout"]
        rngs = {name: keys(name) for name in streams}
        with _explaining(self.name):
            run = apply(scoped, mutable=mutable, flags={"initializing": initializing})
            outputs, changed = run(variables, rngs=rngs)
        if initializing:
            self._names.update(_axis_names(changed))
        return outputs, unfreeze(unbox(changed))

    def _created(
        self, changed: Variables, call: Call, keys: Callable[[str], jax.Array]
    ) -> Variables:
        """The variables of an initialising call, without those that the call only sowed.

        A second call appends to these, so they cannot be carried from step to step.
        """
        created = {name: value for name, value in changed.items() if name not in CALL_ONLY}
        suspects = [name for name, value in created.items() if _holds_sequence(value)]
        if suspects:
            again: Variables = jax.eval_shape(
                lambda: self._run(created, call, True, train=True, keys=keys, initializing=True)[1]
            )
            for name in suspects:
                if jax.tree.structure(again[name]) != jax.tree.structure(created[name]):
                    del created[name]
        return strong(created)

    def _changing(self, variables: Variables, *, train: bool, initializing: bool) -> Any:
        """Flax's filter of the collections that a call may change."""
        if initializing:
            return DenyList("intermediates")
        return tuple(name for name in variables if name != PARAMS) if train else ()

    def _module(self, *, train: bool) -> nn.Module:
        values = mode_values(train)
        fields: dict[str, Any] = {name: values[name] for name in self._mode_fields}
        return self.model.clone(**fields) if fields else self.model


def _call(module: nn.Module, call: Call, *, train: bool) -> Any:
    function = select_method(module, call.method)
    return function(*call.args, **with_mode(function, call.args, call.kwargs, train=train))


def _mode_fields(module: nn.Module, given: Sequence[str]) -> tuple[str, ...]:
    """Fields like ``deterministic`` that tell the mode to a module that takes no such argument."""
    if takes_mode(module):
        return ()
    fields = {field.name for field in dataclasses.fields(module)} - set(given)
    return tuple(name for name in mode_values(True) if name in fields)


def _axis_names(variables: Any) -> Iterator[tuple[Names, Sequence[Any]]]:
    """How the boxes of Flax around variables name their axes, which `unbox` throws away."""
    leaves = jax.tree_util.tree_leaves_with_path(variables, is_leaf=_is_box)
    for path, leaf in leaves:
        if _is_box(leaf) and (names := getattr(leaf, "names", None)) is not None:
            yield path_names(path), tuple(names)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, meta.AxisMetadata)


def _holds_sequence(tree: Any) -> bool:
    if isinstance(tree, dict):
        return any(_holds_sequence(value) for value in tree.values())
    return isinstance(tree, tuple | list)


@contextmanager
def _explaining(model: str) -> Generator[None, None, None]:
    """Says what to write where Flax refuses to change or to find a variable."""
    try:
        yield
    except flax_errors.ModifyScopeVariableError as error:
        error.add_note(
            f"Collections of {model} change in training calls, and those only that initialisation "
            "made. Guard the update by your train argument or by self.is_mutable_collection(...), "
            'or ask for the collection: model(x, mutable=["name"]).'
        )
        raise
    except (
        flax_errors.ScopeParamNotFoundError,
        flax_errors.ScopeCollectionNotFound,
        flax_errors.ScopeVariableNotFoundError,
    ) as error:
        error.add_note(
            f"The variables of {model} are those of the calls that the loss makes with train=True "
            "for the example input; make every call of the model there that any step makes."
        )
        raise
