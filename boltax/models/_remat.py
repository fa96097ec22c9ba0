"""Rematerialisation: the layers of a model computed again in the backward pass, in place of kept.

What counts as a layer is read off the parameters: modules that stand beside others like them, as
the blocks of a transformer do, the outermost of them. A model without such has each module directly
below it taken for one. Between two layers values are kept; within one they are computed again, one
layer after the other, so the activations of one of them are there at a time. The numbers are those
without it, up to rounding.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast, final

import flax.linen as nn
import jax

from boltax._base._types import Variables
from boltax.errors import ConfigurationError
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import is_nnx
from boltax.models._collections import PARAMS
from boltax.models._remat_arrays import divided_arrays
from boltax.models._wrapped import Wrapped

FULL, AUTO = "full", "auto"
Path = tuple[str, ...]


def in_layers(adapter: ModelAdapter, remat: str | None) -> ModelAdapter:
    """The model as it is called with ``LoopOptions(remat=...)``; itself for None.

    Raises:
        ConfigurationError: for a model whose layers boltax cannot see.
    """
    if remat is None or remat == AUTO:  # what is not decided yet
        return adapter
    if not has_layers(adapter):
        raise ConfigurationError(
            f"Received LoopOptions(remat={remat!r}) for {adapter.name}, whose layers boltax does "
            "not see; expected a model of Flax. Write jax.checkpoint (of Equinox "
            "eqx.filter_checkpoint) around its layers in the model itself, and leave remat out."
        )
    return Rematerialised(adapter, remat)


def has_layers(adapter: ModelAdapter) -> bool:
    """Whether boltax sees the layers of a model."""
    return isinstance(adapter.model, nn.Module) or is_nnx(type(adapter.model))


def policy_of(remat: str) -> Callable[..., bool] | None:
    """What of a layer is kept, as `jax.checkpoint` takes it; nothing for ``"full"``."""
    return None if remat == FULL else getattr(jax.checkpoint_policies, remat)


def layers_of(params: Any, before: Path = ()) -> list[Path]:
    """The paths of the modules that are computed again; see the top of the file.

    Args:
        params: a model's parameters, nested dicts.
        before: the path of the module that has them.

    Example:
        >>> block = {"up": {"kernel": 0}, "down": {"kernel": 0}}
        >>> layers_of({"embed": {"table": 0}, "body": {"block_0": block, "block_1": block}})
        [('body', 'block_0'), ('body', 'block_1')]
        >>> layers_of({"embed": {"table": 0}, "head": {"kernel": 0}})
        [('embed',), ('head',)]
    """
    return _repeated(params, before) or [(*before, name) for name in _modules(params)]


def _repeated(params: Any, before: Path) -> list[Path]:
    inner = _modules(params)
    forms = {name: jax.tree.structure(child) for name, child in inner.items()}
    found: list[Path] = []
    for name, child in inner.items():
        is_one = bool(_modules(child)) and list(forms.values()).count(forms[name]) > 1
        found += [(*before, name)] if is_one else _repeated(child, (*before, name))
    return found


def _modules(params: Any) -> dict[str, Any]:
    """What of a module's parameters are modules again."""
    if not isinstance(params, Mapping):
        return {}
    named = cast("Mapping[Any, Any]", params)
    return {str(n): child for n, child in named.items() if isinstance(child, Mapping)}


@final
class Rematerialised(Wrapped):
    """A model whose layers are computed again in the backward pass; see `ModelAdapter`.

    Args:
        adapter: the model.
        remat: what is kept, as in `LoopOptions`.
    """

    def __init__(self, adapter: ModelAdapter, remat: str) -> None:
        super().__init__(adapter)
        self._policy = policy_of(remat)

    def apply(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        train: bool,
        initializing: bool = False,
        **options: Any,
    ) -> tuple[Any, Variables]:
        """Calls the model, in training layer by layer. See `ModelAdapter.apply`."""
        layers = layers_of(variables[PARAMS]) if train and not initializing else []
        with self._again(layers):
            return self._adapter.apply(
                variables, args, kwargs, train=train, initializing=initializing, **options
            )

    def _again(self, layers: list[Path]) -> Any:
        if isinstance(self.model, nn.Module):
            return nn.intercept_methods(_interceptor(set(layers), self._policy))
        from boltax.models._remat_nnx import again  # takes a while to import

        return again(self.model, layers, self._policy)


def _interceptor(layers: set[Path], policy: Any) -> Callable[..., Any]:
    """Has calls of these Linen modules computed again; what they call in turn goes with them."""
    inside: list[Path] = []

    def intercept(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
    ) -> Any:
        path = tuple(context.module.path)
        if inside or context.method_name != "__call__" or path not in layers:
            return call(*args, **kwargs)
        arrays, rebuild = divided_arrays((args, kwargs))

        def layer(module: Any, arrays: list[Any]) -> Any:
            own_args, own_kwargs = rebuild(arrays)
            return module(*own_args, **own_kwargs)

        inside.append(path)
        try:
            return nn.remat(layer, policy=policy)(context.module, arrays)
        finally:
            inside.pop()

    return intercept
