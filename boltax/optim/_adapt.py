"""Makes any transformation of optax fit a compiled training loop; what it computes stays the same.

optax differs from optimizer to optimizer in which extra arguments it takes, what it does with
parameters of mixed precision, and whether its state keeps its types; where it does not, a step is
traced twice and cannot be scanned.
"""

import functools
import inspect
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import optax

from boltax._base._trees import path_text
from boltax._base._types import PyTree
from boltax.errors import OptimizerError

_FUNCTIONS_OF_PARAMS = ("grad_fn", "obj_fn", "value_fn")
_MISSING = re.compile(r"update\w*\(\) missing \d+ required keyword-only arguments?: (.*)")
_QUOTED = re.compile(r"'(\w+)'")


@contextmanager
def optax_promotion() -> Generator[None]:
    """Dtype promotion as optax expects it: Adam's ``decay ** count`` already fails if strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def robust(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` under any dtype promotion, with any extra argument, and a state that keeps its types.

    Args:
        tx: a transformation, or anything with `init(params)` and `update(updates, state, params)`.

    Returns:
        A transformation whose `update` ignores extra arguments that `tx` does not take. `obj_fn`,
        as optax calls it for second derivatives, is `value_fn` where only that is given.
    """
    accepts = _acceptance(tx)

    def init(params: PyTree) -> PyTree:
        with optax_promotion():
            return _strongly_typed(tx.init(params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        taken = {name: value for name, value in _completed(extra).items() if accepts(name)}
        with optax_promotion(), _naming_what_is_missing(extra):
            return tx.update(updates, state, params, **taken)

    return optax.GradientTransformationExtraArgs(init, update)


def with_axes(
    tx: optax.GradientTransformationExtraArgs, name: str
) -> optax.GradientTransformationExtraArgs:
    """`tx`, with an error for parameters without axes, which it cannot train."""

    def init(params: PyTree) -> PyTree:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if jnp.ndim(leaf) == 0:
                raise OptimizerError(
                    f"Received the parameter {path_text(path)} of shape [] for optimizer "
                    f"{name!r}; expected parameters with at least one axis, because it keeps a "
                    "moment for each axis. Give the parameter the shape [1], or choose an "
                    "optimizer such as 'adamw'."
                )
        return tx.init(params)

    return optax.GradientTransformationExtraArgs(init, tx.update)


def requiring(
    tx: optax.GradientTransformationExtraArgs, name: str, needs: tuple[str, ...]
) -> optax.GradientTransformationExtraArgs:
    """`tx`, with an error that says what to write where `update` is not given what it needs."""

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        given = _completed(extra)
        missing = [need for need in needs if given.get(need) is None]
        if missing:
            raise _missing_error(f"optimizer {name!r}", missing, sorted(given))
        return tx.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update) if needs else tx


def in_common_dtype(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, computed in one dtype for all parameters: the widest of them, at least float32.

    So bfloat16 parameters get a float32 state (their own precision is too coarse for moving
    averages and learning rates), and a tree of mixed dtypes works with every optimizer. The
    updates have the dtypes of the parameters.
    """

    def init(params: PyTree) -> PyTree:
        return tx.init(_cast(params, _common_dtype(params)))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        like = updates if params is None else params
        dtype = _common_dtype(like)
        wide = {name: _widened(name, value, like, dtype) for name, value in extra.items()}
        updates, state = tx.update(_cast(updates, dtype), state, _cast(params, dtype), **wide)
        return _cast_like(updates, like), state

    return optax.GradientTransformationExtraArgs(init, update)


def _acceptance(tx: Any) -> Callable[[str], bool]:
    """Whether `tx` takes an extra argument of that name."""
    is_plain = isinstance(tx, optax.GradientTransformation)
    if is_plain and not isinstance(tx, optax.GradientTransformationExtraArgs):
        return lambda _: False
    parameters = inspect.signature(tx.update).parameters
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return lambda name: is_open or name in parameters


def _completed(extra: Mapping[str, Any]) -> dict[str, Any]:
    value_fn = extra.get("value_fn")
    if value_fn is None:
        return dict(extra)
    extra = {"obj_fn": value_fn, **extra}
    return extra | {"value_fn": _taking_any(value_fn, extra)}


def _taking_any(value_fn: Callable[..., Any], extra: Mapping[str, Any]) -> Callable[..., Any]:
    """`value_fn`, declared to take all of `extra`: a line search of optax rejects what it lacks."""
    own = inspect.signature(value_fn).parameters
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_ONLY)
    others = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        for name in sorted(extra)
        if name not in {"value", "grad", "value_fn"}
    ]

    def value_of(params: PyTree, /, **kwargs: Any) -> Any:
        return value_fn(params, **{name: value for name, value in kwargs.items() if name in own})

    vars(value_of)["__signature__"] = inspect.Signature([first, *others])
    return value_of


@contextmanager
def _naming_what_is_missing(given: Mapping[str, Any]) -> Generator[None]:
    """Around an update of a transformation whose needs nobody told: optax names them too late."""
    try:
        yield
    except TypeError as error:
        found = _MISSING.search(str(error))
        if found is None or not (missing := _QUOTED.findall(found[1])):
            raise
        raise _missing_error("the given transformation", missing, sorted(given)) from error


def _missing_error(optimizer: str, missing: list[str], given: list[str]) -> OptimizerError:
    if {*missing} & {*_FUNCTIONS_OF_PARAMS}:
        write = "state.apply_gradients(grads=grads, loss=loss, value_fn=lambda params: ...)"
    else:
        write = "state.apply_gradients(grads=grads, loss=loss)"
    return OptimizerError(
        f"Received an update of {optimizer} with {', '.join(given) or 'gradients alone'}; "
        f"expected {', '.join(missing)} too (value: the loss; grad: the gradients; value_fn or "
        "obj_fn: a function from parameters to the loss of the batch). Write "
        f"{write} in train_step, or choose an optimizer that needs gradients alone, such as "
        "'adamw'."
    )


def _strongly_typed(state: PyTree) -> PyTree:
    """Without weak types: the first update makes them strong, and a step would be traced again."""

    def strong(leaf: Any) -> Any:
        is_weak = getattr(leaf, "weak_type", False)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if is_weak else leaf

    return jax.tree.map(strong, state)


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _common_dtype(tree: PyTree) -> Any:
    with optax_promotion():
        dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree) if _is_floating(leaf)}
        return jnp.result_type(jnp.float32, *dtypes)


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if _is_floating(leaf) else leaf, tree)


def _cast_like(tree: PyTree, like: PyTree) -> PyTree:
    def cast(leaf: Any, other: Any) -> Any:
        return jnp.asarray(leaf, jnp.result_type(other)) if _is_floating(other) else leaf

    return jax.tree.map(cast, tree, like)


def _widened(name: str, value: Any, like: PyTree, dtype: Any) -> Any:
    """An extra argument as an optimizer that computes in `dtype` needs it."""
    if name == "grad":
        return _cast(value, dtype)
    if name not in _FUNCTIONS_OF_PARAMS or not callable(value):
        return value

    @functools.wraps(value)
    def of_wide_params(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return value(_cast_like(params, like), *args, **kwargs)

    return of_wide_params
