"""Compiles the steps: the only file that calls `jit`.

The loop sees one kind of step, ``step(state, metrics, batch) -> (state, metrics, is_bad)``: the
user's step, followed by the accumulation of its metrics and a check that its loss and gradients are
finite, in the same program. State and metrics are donated. A step is traced once for each shape of
batch, and each time it is compiled that is announced, with the time that it took.

Two ways in: `compile_steps` for pure steps, and `host_steps` for steps that must be called as they
are (``debug=True``, or a user's own `create_jitted_functions`), where only the accumulation of
metrics is compiled.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from boltax._state import params_of
from boltax._trees import is_deleted, num_examples
from boltax._types import Batch, PyTree
from boltax.errors import TrainingError
from boltax.metrics._accumulate import (
    Metrics,
    SavedMetrics,
    empty_like,
    extend,
    merge,
    rebuilt,
    start,
)

TrainStep = Callable[[Any, Batch], tuple[Any, dict[str, Any]]]
EvalStep = Callable[[Any, Batch], dict[str, Any]]
PredictStep = Callable[[Any, Batch], Any]
Announce = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Steps:
    """The steps as the loop calls them.

    Attributes:
        train: ``(state, metrics, batch) -> (state, metrics, is_bad)``; donates the first two. The
            last one, a bool, says that the loss or a gradient of this step was not finite.
        evaluate: ``(state, metrics, batch) -> metrics``; donates the metrics.
        predict: ``(state, batch) -> outputs``.
        train_step: ``(state, batch) -> (state, metrics of the batch)``, compiled, nothing donated:
            for users.
        eval_step: ``(state, batch) -> metrics of the batch``, likewise.
        empty_train: ``(state, batch, saved) -> metrics``: the accumulators for metrics like those
            of this batch: of no batch, or with the values `saved` in a checkpoint.
        empty_eval: the same for evaluation.
        merge: adds up two accumulated metrics; donates nothing.
    """

    train: Callable[[Any, Metrics, Batch], tuple[Any, Metrics, jax.Array]]
    evaluate: Callable[[Any, Metrics, Batch], Metrics]
    predict: PredictStep
    train_step: TrainStep
    eval_step: EvalStep
    empty_train: Callable[[Any, Batch, SavedMetrics | None], Any]
    empty_eval: Callable[[Any, Batch, SavedMetrics | None], Any]
    merge: Callable[[Metrics, Metrics], Metrics] = field(default_factory=lambda: jax.jit(merge))


def compile_steps(
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    *,
    on_nonfinite: str,
    announce: Announce,
) -> Steps:
    """Steps compiled from pure functions.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        eval_step: ``(state, batch) -> metrics``.
        predict_step: ``(state, batch) -> outputs``.
        on_nonfinite: see `LoopOptions`; ``"stop"`` leaves the state as it is from the first step on
            whose loss or gradient is not finite, until the accumulated metrics are new ones.
        announce: makes the context in which a step with a given name is compiled.
    """
    # The inner jits are what users call; the outer ones find their traces, so each step is traced
    # only once.
    train_step, eval_step, predict_step = (
        jax.jit(train_step),
        jax.jit(eval_step),
        jax.jit(predict_step),
    )
    train = jax.jit(partial(_train, train_step, on_nonfinite), donate_argnums=(0, 1))
    evaluate = jax.jit(partial(_evaluate, eval_step), donate_argnums=1)
    return Steps(
        train=_announcing(train, "train step", announce),
        evaluate=_announcing(evaluate, "evaluation step", announce),
        predict=_announcing(predict_step, "prediction step", announce),
        train_step=train_step,
        eval_step=eval_step,
        empty_train=_empty(
            lambda *args: jax.eval_shape(partial(_batch_metrics, train_step, True), *args)
        ),
        empty_eval=_empty(
            lambda *args: jax.eval_shape(partial(_batch_metrics, eval_step, False), *args)
        ),
    )


def host_steps(
    train_step: TrainStep, eval_step: EvalStep, predict_step: PredictStep, *, on_nonfinite: str
) -> Steps:
    """Steps that call the functions as they are, and compile only what follows them.

    A step that has taken the memory of the old state cannot be undone: then a state that is not
    finite stays.
    """
    accumulate = jax.jit(_accumulate, static_argnums=2, donate_argnums=0)
    is_bad_step = jax.jit(_is_bad)

    def train(state: Any, metrics: Any, batch: Batch) -> tuple[Any, Metrics, jax.Array]:
        new, batch_metrics = _checked_result(train_step(state, batch))
        count = num_examples(batch)
        is_bad = is_bad_step(batch_metrics, params_of(new))
        if on_nonfinite != "continue" and not is_deleted(state) and jax.device_get(is_bad):
            return state, metrics, is_bad
        if isinstance(metrics, SavedMetrics):
            like = jax.eval_shape(partial(start, num_examples=count), batch_metrics)
            metrics = rebuilt(metrics, like)
        return new, accumulate(metrics, batch_metrics, count), is_bad

    def evaluate(state: Any, metrics: Metrics, batch: Batch) -> Metrics:
        return accumulate(
            metrics, eval_step(_with_batch_rng(state, metrics), batch), num_examples(batch)
        )

    # The shapes of the metrics are not known before the functions have run, and running them twice
    # could be seen.
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    none = _empty(lambda *_: Metrics({}, count, count, count))

    def empty(state: Any, batch: Batch, saved: SavedMetrics | None) -> Any:
        return none(state, batch, None) if saved is None else saved

    return Steps(train, evaluate, predict_step, train_step, eval_step, empty, empty)


def compile_init(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Compiles a function that makes variables, so that nothing is made leaf by leaf."""
    return jax.jit(function)


def compile_create(function: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    """Compiles a function from a state to a new one; donating the old keeps buffers apart."""
    return jax.jit(function, donate_argnums=0)


def compile_copy() -> Callable[[PyTree, PyTree | None], PyTree]:
    """Compiles ``copy(tree, into)``: a copy on the device, in new memory or in that of `into`.

    A copy into memory that was used before takes a fifth of the time.
    """

    def copy(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)

    anew = jax.jit(copy)
    again = jax.jit(lambda tree, _: copy(tree), donate_argnums=1, keep_unused=True)
    return lambda tree, into: anew(tree) if into is None else again(tree, into)


def _train(
    train_step: TrainStep, on_nonfinite: str, state: Any, metrics: Metrics, batch: Batch
) -> tuple[Any, Metrics, jax.Array]:
    new, batch_metrics = _checked_result(train_step(state, batch))
    extended = _accumulate(metrics, batch_metrics, num_examples(batch))
    is_bad = _is_bad(batch_metrics, params_of(new))
    if on_nonfinite == "continue":
        return new, extended, is_bad
    # A step that is left out is one that had no effect: its inputs are its outputs.
    is_left_out = is_bad
    if on_nonfinite == "stop":  # steps that the host has sent off before it knew
        is_left_out |= metrics.left_out > 0
    noted = dataclasses.replace(metrics, left_out=metrics.left_out + 1)
    return _where(is_left_out, state, new), _where(is_left_out, noted, extended), is_bad


def _is_bad(batch_metrics: dict[str, Any], params: PyTree) -> jax.Array:
    """Whether the loss or the gradients are not finite; without their norm the parameters tell."""
    suspects = (batch_metrics.get("loss"), batch_metrics.get("grad_norm", params))
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(suspects)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    return ~jnp.stack(finite).all() if finite else jnp.zeros((), bool)


def _where(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    def choose(left: Any, right: Any) -> Any:
        return left if left is right else jnp.where(condition, left, right)

    return jax.tree.map(choose, yes, no)


def _evaluate(eval_step: EvalStep, state: Any, metrics: Metrics, batch: Batch) -> Metrics:
    return _accumulate(
        metrics, eval_step(_with_batch_rng(state, metrics), batch), num_examples(batch)
    )


def _accumulate(metrics: Metrics, batch_metrics: dict[str, Any], count: int) -> Metrics:
    new = start(batch_metrics, count)
    return extend(metrics, new) if metrics.values or not new.values else new


def _batch_metrics(
    step: Callable[[Any, Batch], Any], is_train: bool, state: Any, batch: Batch
) -> Metrics:
    result = step(state, batch)
    return start(_checked_result(result)[1] if is_train else result, num_examples(batch))


def _checked_result(result: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise TrainingError(
        f"Received {type(result).__name__} from train_step; expected a pair (state, metrics). "
        "End the train_step of create_functions with: return state, metrics"
    )


def _with_batch_rng(state: Any, metrics: Metrics) -> Any:
    """Gives each evaluation batch a key of its own, in a state that is thrown away after it."""
    rng = getattr(state, "rng", None)
    return state if rng is None else state.replace(rng=jax.random.fold_in(rng, metrics.batches))


def _empty(
    shapes_of: Callable[[Any, Batch], Metrics],
) -> Callable[[Any, Batch, SavedMetrics | None], Metrics]:
    """Makes zeros in one compiled call; all batches have the same, so shapes are asked for once."""
    makers: list[Callable[[], Metrics]] = []

    def empty(state: Any, batch: Batch, saved: SavedMetrics | None) -> Metrics:
        if not makers:
            shapes = shapes_of(state, batch)
            makers.append(jax.jit(lambda: empty_like(shapes)))
        zeros = makers[0]()
        return zeros if saved is None else rebuilt(saved, like=zeros)

    return empty


def _announcing(step: Callable[..., Any], name: str, announce: Announce) -> Callable[..., Any]:
    """Calls a compiled step, announced when its batch (the last argument) has a new shape."""
    seen: set[tuple[Any, ...]] = set()

    def call(*args: Any) -> Any:
        signature = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(args[-1]))
        if signature in seen:
            return step(*args)
        with announce(f"compiling the {name} for batches of {num_examples(args[-1])}"):
            result = step(*args)
        seen.add(signature)
        return result

    return call
