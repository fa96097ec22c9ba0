"""Rematerialisation of NNX modules; see `boltax.models._remat`."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from flax import nnx

from boltax.models._remat_arrays import divided_arrays

Path = tuple[str, ...]


def again(model: Any, layers: list[Path], policy: Any) -> Any:
    """Within it calls of the modules at these paths are computed again in the backward pass.

    Args:
        model: the module.
        layers: the paths.
        policy: what of a layer is kept, as `jax.checkpoint` takes it.
    """
    return _patched(_classes(model, layers), policy)


def _classes(model: Any, layers: list[Path]) -> set[type]:
    """The classes of the NNX modules at these paths."""
    wanted = set(layers)
    return {
        type(node)
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Module) and tuple(map(str, path)) in wanted
    }


@contextlib.contextmanager
def _patched(classes: set[type], policy: Any) -> Generator[None]:
    """Within it calls of modules of these classes are computed again, the outermost of them."""
    inside: list[type] = []

    def again(own: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            if inside:
                return own(module, *args, **kwargs)
            arrays, rebuild = divided_arrays((args, kwargs))

            def layer(module: Any, arrays: list[Any]) -> Any:
                own_args, own_kwargs = rebuild(arrays)
                return own(module, *own_args, **own_kwargs)

            inside.append(type(module))
            try:
                return nnx.remat(layer, policy=policy)(module, arrays)
            finally:
                inside.pop()

        return call

    before: dict[Any, Any] = {cls: cls.__dict__.get("__call__") for cls in classes}
    try:
        for cls in before:
            cls.__call__ = again(cls.__call__)
        yield
    finally:
        for cls, own in before.items():
            if own is None:
                del cls.__call__
            else:
                cls.__call__ = own
