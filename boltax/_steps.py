"""Compiles the steps: the only file that calls `jit`.

The loop sees one kind of step, ``step(state, metrics, batch) -> (state, metrics)``: the user's
step, followed by the accumulation of its metrics in the same program. State and metrics are
donated. A step is traced once for each shape of batch, and each time it is compiled that is
announced, with the time that it took.

Two ways in: `compile_steps` for pure steps, and `host_steps` for steps that must be called as they
are (``debug=True``, or a user's own `create_jitted_functions`), where only the accumulation of
metrics is compiled.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from boltax._trees import num_examples
from boltax._types import Batch, PyTree
from boltax.errors import TrainingError
from boltax.metrics._accumulate import Metrics, empty_like, extend, merge, start

TrainStep = Callable[[Any, Batch], tuple[Any, dict[str, Any]]]
EvalStep = Callable[[Any, Batch], dict[str, Any]]
PredictStep = Callable[[Any, Batch], Any]
Announce = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Steps:
    """The steps as the loop calls them.

    Attributes:
        train: ``(state, metrics, batch) -> (state, metrics)``; donates the first two.
        evaluate: ``(state, metrics, batch) -> metrics``; donates the metrics.
        predict: ``(state, batch) -> outputs``.
        train_step: ``(state, batch) -> (state, metrics of the batch)``, compiled, nothing donated:
            for users.
        eval_step: ``(state, batch) -> metrics of the batch``, likewise.
        empty_train: ``(state, batch) -> metrics``: accumulators of no batch, for metrics like those
            of this batch.
        empty_eval: the same for evaluation.
        merge: adds up two accumulated metrics; donates nothing.
    """

    train: Callable[[Any, Metrics, Batch], tuple[Any, Metrics]]
    evaluate: Callable[[Any, Metrics, Batch], Metrics]
    predict: PredictStep
    train_step: TrainStep
    eval_step: EvalStep
    empty_train: Callable[[Any, Batch], Metrics]
    empty_eval: Callable[[Any, Batch], Metrics]
    merge: Callable[[Metrics, Metrics], Metrics] = field(default_factory=lambda: jax.jit(merge))


def compile_steps(
    train_step: TrainStep, eval_step: EvalStep, predict_step: PredictStep, *, announce: Announce
) -> Steps:
    """Steps compiled from pure functions.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        eval_step: ``(state, batch) -> metrics``.
        predict_step: ``(state, batch) -> outputs``.
        announce: makes the context in which a step with a given name is compiled.
    """
    # The inner jits are what users call; the outer ones find their traces, so each step is traced
    # only once.
    train_step, eval_step, predict_step = (
        jax.jit(train_step),
        jax.jit(eval_step),
        jax.jit(predict_step),
    )
    train = jax.jit(partial(_train, train_step), donate_argnums=(0, 1))
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


def host_steps(train_step: TrainStep, eval_step: EvalStep, predict_step: PredictStep) -> Steps:
    """Steps that call the functions as they are, and compile only the accumulation of metrics."""
    accumulate = jax.jit(_accumulate, static_argnums=2, donate_argnums=0)

    def train(state: Any, metrics: Metrics, batch: Batch) -> tuple[Any, Metrics]:
        state, batch_metrics = _checked_result(train_step(state, batch))
        return state, accumulate(metrics, batch_metrics, num_examples(batch))

    def evaluate(state: Any, metrics: Metrics, batch: Batch) -> Metrics:
        return accumulate(
            metrics, eval_step(_with_batch_rng(state, metrics), batch), num_examples(batch)
        )

    # The shapes of the metrics are not known before the functions have run, and running them twice
    # could be seen.
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    empty = _empty(lambda *_: Metrics({}, count, count))
    return Steps(train, evaluate, predict_step, train_step, eval_step, empty, empty)


def compile_init(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Compiles a function that makes variables, so that nothing is made leaf by leaf."""
    return jax.jit(function)


def compile_create(function: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    """Compiles a function from a state to a new one; donating the old keeps buffers apart."""
    return jax.jit(function, donate_argnums=0)


def _train(
    train_step: TrainStep, state: Any, metrics: Metrics, batch: Batch
) -> tuple[Any, Metrics]:
    state, batch_metrics = _checked_result(train_step(state, batch))
    return state, _accumulate(metrics, batch_metrics, num_examples(batch))


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


def _empty(shapes_of: Callable[[Any, Batch], Metrics]) -> Callable[[Any, Batch], Metrics]:
    """Makes zeros in one compiled call; all batches have the same, so shapes are asked for once."""
    makers: list[Callable[[], Metrics]] = []

    def empty(state: Any, batch: Batch) -> Metrics:
        if not makers:
            shapes = shapes_of(state, batch)
            makers.append(jax.jit(lambda: empty_like(shapes)))
        return makers[0]()

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
