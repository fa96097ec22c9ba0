"""Makes a model's variables from an example, compiled, or says why the two do not fit."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._types import Batch, PyTree, Variables
from boltax._step._blame import explained
from boltax._step._flops import value_bytes
from boltax._step._steps import compile_init
from boltax.errors import BoltaxError
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.models._view import InnerCallError, ModelView
from boltax.parallel._placement import ONE_DEVICE, Placement

RunModel = Callable[[ModelView, Batch], PyTree]
"""Runs the model on an example: a loss, or a plain call."""


def first_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The root key of a run, and the key of its initial values.

    In one small program: `jax.random.key` and `jax.random.split` outside of one compile four, with
    optimizations, which takes longer than all that a trainer of a small model does besides. The
    trainers of a process share it.
    """
    return _two_keys()(np.int64(seed))  # as jax.random.key takes a seed


@lru_cache(maxsize=1)
def _two_keys() -> Callable[..., tuple[jax.Array, jax.Array]]:
    def two_keys(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(jax.random.key(seed))
        return first, second

    return compile_init(two_keys)


def root_key(seed: jax.Array) -> jax.Array:
    """The first of `first_keys`; traced."""
    return jax.random.split(jax.random.key(seed))[0]


def call_model(model: ModelView, inputs: Sequence[PyTree]) -> None:
    """Runs a model on inputs alone, where there is no loss."""
    model(*inputs)


def initialise(
    adapter: ModelAdapter,
    run: RunModel,
    example: Batch,
    key: jax.Array,
    *,
    hparams: Mapping[str, Any],
    traced_hparams: Mapping[str, jax.Array],
    owner: str = "the trainer",
    is_abstract: bool = False,
    placement: Placement = ONE_DEVICE,
) -> tuple[Variables, list[Call]]:
    """Variables of a model, made by running it once in initialisation mode.

    Args:
        adapter: the model.
        run: ``(view, example)``; what it returns is thrown away.
        example: an example batch, or inputs.
        key: random key.
        hparams: what the view gives as ``model.hparams``.
        traced_hparams: the numbers among them that are traced.
        owner: the name of the trainer's class, for messages.
        is_abstract: give shapes in place of arrays, for values that are loaded from elsewhere.
        placement: where the variables are to lie; each device makes what it holds.

    Returns:
        Variables by collection, and with what the model was called.

    Raises:
        ModelError: when the example does not fit the model.
        LossError: when the loss itself cannot be run.
    """
    calls: list[Call] = []
    init = partial(init_variables, adapter, run, hparams, calls)
    try:
        if is_abstract:
            return jax.eval_shape(init, example, key, dict(traced_hparams)), calls
        options: dict[str, Any] = {}
        if not placement.is_one:
            unseen = partial(init_variables, adapter, run, hparams, [])
            shapes = jax.eval_shape(unseen, example, key, dict(traced_hparams))
            options["out_shardings"] = placement.of_variables(shapes, adapter.axis_names)
        return compile_init(init, **options)(example, key, dict(traced_hparams)), calls
    except BoltaxError:
        raise
    except AttributeError as error:
        error.add_note(
            "attributes of the trainer that its loss_function uses must be set before "
            "super().__init__()"
        )
        raise
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        better = explained(error, example, model=adapter.name, owner=owner)
        if better is None:
            raise
        raise better.with_traceback(error.__traceback__) from error


def forward_bytes(
    adapter: ModelAdapter, run: RunModel, example: Batch, hparams: Mapping[str, Any]
) -> int:
    """Bytes of the values that a pass through the model makes; traced, without JAX's backend."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = partial(init_variables, adapter, run, hparams, [])
    return value_bytes(jax.make_jaxpr(init)(example, key, {}).jaxpr)


def init_variables(
    adapter: ModelAdapter,
    run: RunModel,
    hparams: Mapping[str, Any],
    calls: list[Call],
    example: Batch,
    key: jax.Array,
    traced: dict[str, jax.Array],
) -> Variables:
    """Variables of a model, traced; `calls` gets with what the model was called."""
    every = {**hparams, **traced}

    def new() -> ModelView:
        variables = adapter.empty(key)
        return ModelView(adapter, variables, key, train=True, hparams=every, initializing=True)

    view = new()
    try:
        run(view, example)
    except InnerCallError as error:
        first, view = error.call, new()
        view(*_zeros(first.args), method=first.method, **_zeros(first.kwargs))
        run(view, example)
    calls.extend(view.calls)
    return view.variables


def _zeros(form: Any) -> Any:
    """Arguments of that form, for a call outside of the loop in whose body the model is called."""

    def zero(leaf: Any) -> Any:
        is_array = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.zeros(leaf.shape, leaf.dtype) if is_array else leaf

    return jax.tree.map(zero, form)
