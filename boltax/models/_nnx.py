"""Flax NNX behind the adapter interface: a module is merged, called, and taken apart again.

All of it happens while a step is traced; the compiled step knows arrays only.
"""

import inspect
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from flax import nnx
from flax.core.scope import in_filter

from boltax._base._keys import fold_name
from boltax._base._types import Variables
from boltax.errors import noting
from boltax.models._bound import BoundModel
from boltax.models._calls import (
    Call,
    Method,
    constructor_parameters,
    explicit_mode,
    keys_from,
    linen_apply,
    select_method,
    takes_mode,
    trace_abstractly,
    with_mode,
    without_mode,
)
from boltax.models._collections import PARAMS, settled
from boltax.models._nnx_template import make_template, mark_arrays
from boltax.parallel._rules import AxisNames


class NnxAdapter:
    """An NNX module as boltax calls it; see `ModelAdapter`.

    `nnx.Param` and its subclasses are the parameters, `nnx.BatchStat` the batch statistics;
    variables of any other type form a collection named after it (``MovingMean`` ->
    ``moving_mean``), plain arrays form ``arrays``. Random streams are no variables: each call
    starts them from keys of its own. What `sow` stores lasts one call, and so does what a call
    writes to an attribute that holds no array.

    Args:
        model_class: the class.
        model_hparams: arguments of its constructor, other than ``rngs``.
        rng_streams: names of random streams beside ``params``, ``dropout`` and ``default``.
    """

    def __init__(
        self,
        model_class: type[nnx.Module],
        model_hparams: Mapping[str, Any],
        *,
        rng_streams: Sequence[str] = (),
    ) -> None:
        self.name = model_class.__name__
        self._model_class = model_class
        self._hparams = dict(model_hparams)
        self._streams = tuple(dict.fromkeys(("default", "params", "dropout", *rng_streams)))
        self._template, self.model = make_template(
            self.name, lambda: self._build(jax.random.key(0))
        )
        self.apply_fn: Callable[..., Any] = linen_apply(self.apply)
        self.axis_names: AxisNames = self._template.axis_names

    def empty(self, key: jax.Array) -> Variables:
        """The variables of a newly built module. See `ModelAdapter.empty`."""
        return self._template.variables(self._build(key))

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
        module = self._template.module(variables, keys)
        asked = mutable or ()
        function, inputs = _prepare(module, Call(args, dict(kwargs), method), train=train)
        with _without_sow_warning():
            outputs = function(*args, **inputs)
        added = self._template.extra(module, lambda name: in_filter(asked, name))
        changed = self._template.variables(module)
        extra = {name: value for name, value in (changed | added).items() if in_filter(asked, name)}
        keep_all = train and mutable is not False
        kept = {
            name: settled(name, variables[name], value, self.name)
            for name, value in changed.items()
            if name != PARAMS and (keep_all or name in extra)
        }
        # Initialisation leaves the values that the constructor gave, as Linen leaves those of its
        # initializers.
        result = variables if initializing else {**variables, **kept}
        return (outputs, extra) if mutable else outputs, result

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The module with its variables. See `ModelAdapter.bind`."""
        module = self._template.module(variables, keys_from(rngs))
        module.eval()
        methods = inspect.getmembers(type(module), inspect.isfunction)
        own = [
            method
            for name, method in methods
            if not hasattr(nnx.Module, name) or name == "__call__"
        ]
        return BoundModel(module, nnx.Module) if any(map(takes_mode, own)) else module

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """Flax's table of the modules that the first call reaches. See `ModelAdapter.tabulate`."""
        text = list[str]()

        def run(calls: list[Call]) -> None:
            call = calls[0]
            module = self._build(jax.random.key(0))
            _, inputs = _prepare(module, call, train=True)
            with _without_sow_warning(), _restoring_classes(module):
                table = nnx.tabulate(
                    module,
                    *call.args,
                    depth=depth,
                    method=_method_name(call.method),
                    console_kwargs=console,
                    **inputs,
                )
            text.append(table)

        trace_abstractly(run, list(calls[:1]))
        return text[0]

    def _build(self, key: jax.Array) -> nnx.Module:
        parameters = constructor_parameters(self._model_class)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        streams = {name: fold_name(key, name) for name in self._streams}
        rngs = {"rngs": nnx.Rngs(**streams)} if takes_any or "rngs" in parameters else {}
        # Named axes are read off the variables; Flax itself would look for a global mesh.
        eager = nnx.use_eager_sharding(False)
        with noting(f"the constructor of {self.name}", "which boltax traces"), eager:
            return mark_arrays(self._model_class(**self._hparams, **rngs))


def _prepare(
    module: nnx.Module, call: Call, *, train: bool
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Sets the mode of a module, and gives what is called of it and with which keyword arguments.

    ``model(x, train=False)`` says the mode of a module without such an argument, too, so that one
    loss function does for Linen and NNX.
    """
    function = select_method(module, call.method)
    explicit = explicit_mode(function, call.args, call.kwargs)
    train = train if explicit is None else explicit
    if train:
        module.train()
    else:
        module.eval()
    kwargs = without_mode(function, call.kwargs)
    return function, with_mode(function, call.args, kwargs, train=train)


def _method_name(method: Method) -> str:
    if method is None:
        return "__call__"
    return method if isinstance(method, str) else method.__name__


@contextmanager
def _without_sow_warning() -> Generator[None, None, None]:
    """Flax warns of `sow` outside of `nnx.capture`; here it is dropped, or returned on request."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Using 'Module\.(sow|perturb)\(\)' outside")
        yield


@contextmanager
def _restoring_classes(module: nnx.Module) -> Generator[None, None, None]:
    """`nnx.tabulate` patches the classes that it meets, and leaves them so when a call fails."""
    classes = {type(node) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Pytree)}
    before = {cls: dict(vars(cls)) for cls in classes}
    try:
        yield
    finally:
        for cls, attributes in before.items():
            for name in set(vars(cls)) - set(attributes):
                delattr(cls, name)
            for name, value in attributes.items():
                if vars(cls)[name] is not value:
                    setattr(cls, name, value)
