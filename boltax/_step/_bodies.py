"""One step as it is traced: the user's step, then the accumulation of its metrics and a check.

Pure functions ``(constants, carry, batch) -> (carry, outputs)``; `_steps` compiles them, one or
several to a program.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from boltax._base._keys import step_key
from boltax._base._trees import choose, num_examples, tree_bytes
from boltax._base._types import Batch, PyTree
from boltax._step._loss_scale import has_overflowed
from boltax._step._state import params_of
from boltax.errors import ConfigurationError, TrainingError
from boltax.metrics._accumulate import Metrics, are_per_example, empty_like, extend, pack, start
from boltax.optim._adapt import optax_promotion
from boltax.optim._named import NamedState

TrainStep = Callable[[Any, Batch], tuple[Any, dict[str, Any]]]
EvalStep = Callable[[Any, Batch], dict[str, Any]]
PredictStep = Callable[[Any, Batch], Any]
Body = Callable[[Any, Any, Batch], tuple[Any, Any]]
"""One step: ``(constants, carry, batch) -> (carry, outputs)``."""

MOST_WHOLE = 64 * 2**20
"""Bytes of a state that is copied sooner than chosen array by array."""


class Training(NamedTuple):
    """What a training step carries on."""

    state: Any
    metrics: Any


class Evaluation(NamedTuple):
    """What an evaluation step reads.

    Attributes:
        state: the training state.
        examples: how many the metrics are to hold after this dispatch, int32: what stands behind
            them in a batch fills it up. Metrics that have no value for each example count all.
    """

    state: Any
    examples: Any


def train_body(
    train_step: TrainStep, on_nonfinite: str, _: Any, carry: Training, batch: Batch
) -> tuple[Training, jax.Array]:
    state, metrics = carry
    new, batch_metrics = checked_result(train_step(state, batch))
    extended = accumulate(metrics, batch_metrics, num_examples(batch))
    is_bad = is_step_bad(batch_metrics, params_of(new))
    is_overflow = has_overflowed(state, new)
    if is_overflow is not None:  # left out by the step itself, to be expected with float16
        extended, is_bad = choose(is_overflow, metrics, extended), is_bad & ~is_overflow
    if on_nonfinite == "continue":
        return Training(new, extended), is_bad
    # A step that is left out is one that had no effect: its inputs are its outputs.
    is_left_out = is_bad
    if on_nonfinite == "stop":  # steps that the host has sent off before it knew
        is_left_out |= metrics.left_out > 0
    noted = dataclasses.replace(metrics, left_out=metrics.left_out + 1)
    old, new = Training(state, noted), Training(new, extended)
    if is_taken_whole(carry):
        return lax.cond(is_left_out, lambda: old, lambda: new), is_bad
    return choose(is_left_out, old, new), is_bad


def is_taken_whole(carry: Training) -> bool:
    """Whether the result of a step is taken or left in one piece, and not chosen array by array.

    So the step is compiled to the same arithmetic as where nothing is chosen. On a CPU that is a
    copy of the state; on an accelerator the host would have to wait for the decision.
    """
    return jax.default_backend() == "cpu" and tree_bytes(carry) <= MOST_WHOLE


def turn_metrics(
    on_nonfinite: str, accumulated: Metrics | None, interval: Metrics
) -> tuple[Metrics, Metrics, dict[str, jax.Array]]:
    """Ends an interval: what is accumulated with it, the metrics of the next, and it, packed.

    Where training ends with a step that is not finite, no interval ends after it.
    """
    before = empty_like(interval) if accumulated is None else accumulated
    whole, following = extend(before, interval), empty_like(interval)
    if on_nonfinite == "stop":
        is_over = interval.left_out > 0
        whole, following = choose(is_over, (before, interval), (whole, following))
    return whole, following, jax.tree.map(lambda vector: vector[None], pack(interval))


def add_ended(
    accumulated: Metrics | None, number: jax.Array, ended: Metrics
) -> tuple[Metrics, dict[str, jax.Array]]:
    """Accumulates intervals that ended in a loop: the first `number` rows; and all, packed."""
    empty = jax.tree.map(lambda rows: jnp.zeros(rows.shape[1:], rows.dtype), ended)

    def add(row: Any, before: Metrics) -> Metrics:
        return extend(before, jax.tree.map(lambda rows: rows[row], ended))

    whole = lax.fori_loop(0, number, add, empty if accumulated is None else accumulated)
    return whole, jax.vmap(pack)(ended)


def completed(train_step: TrainStep, *, has_ema: bool, log_norms: bool) -> TrainStep:
    """A user's step, with what boltax computes beside any: the average of parameters, and norms.

    Args:
        train_step: the step.
        has_ema: whether the state keeps an average.
        log_norms: whether the norms of the parameters and of their change are metrics.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        new, metrics = checked_result(train_step(state, batch))
        if log_norms:
            metrics = {**metrics, **_norms(params_of(state), params_of(new))}
        if not has_ema:
            return new, metrics
        if getattr(new, "ema", None) is None:
            raise ConfigurationError(
                f"Received LoopOptions(ema=...) and a state of type {type(new).__name__} without "
                "an average; expected one with the field ema, as TrainerModule.init_optimizer "
                "makes it. Call super().init_optimizer(num_epochs, num_steps_per_epoch) first, "
                "and change its self.state with replace."
            )
        is_overflow = has_overflowed(state, new)
        is_step = None if is_overflow is None else ~is_overflow
        return new.replace(ema=state.ema.updated(new, is_step)), metrics

    return step if has_ema or log_norms else train_step


def _norms(before: PyTree, after: PyTree) -> dict[str, jax.Array]:
    with optax_promotion():
        update = optax.tree.sub(after, before)
        return {"param_norm": optax.tree.norm(after), "update_norm": optax.tree.norm(update)}


def is_step_bad(batch_metrics: dict[str, Any], params: PyTree) -> jax.Array:
    """Whether the loss or the gradients are not finite; without their norm the parameters tell."""
    suspects = (batch_metrics.get("loss"), batch_metrics.get("grad_norm", params))
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(suspects)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    return ~jnp.stack(finite).all() if finite else jnp.zeros((), bool)


def eval_body(
    eval_step: EvalStep, constants: Evaluation, metrics: Metrics, batch: Batch
) -> tuple[Metrics, tuple[()]]:
    batch_metrics = eval_step(with_batch_rng(constants.state, "eval", metrics.batches), batch)
    size = num_examples(batch)
    real = None
    if are_per_example(batch_metrics, size):
        real = jnp.clip(constants.examples - metrics.examples, 0, size)
    return accumulate(metrics, batch_metrics, size, real), ()


def accumulate(
    metrics: Metrics, batch_metrics: dict[str, Any], count: int, real: jax.Array | None = None
) -> Metrics:
    new = start(batch_metrics, count, real)
    return extend(metrics, new) if metrics.values or not new.values else new


def batch_metrics_of(
    step: Callable[[Any, Batch], Any], is_train: bool, state: Any, batch: Batch
) -> Metrics:
    result = step(state, batch)
    return start(checked_result(result)[1] if is_train else result, num_examples(batch))


def checked_result(result: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise TrainingError(
        f"Received {type(result).__name__} from train_step; expected a pair (state, metrics). "
        "End the train_step of create_functions with: return state, metrics"
    )


def counted_once(train_step: TrainStep) -> TrainStep:
    """`train_step`; with several optimizers its state is one step on, whatever it has updated."""

    @functools.wraps(train_step)
    def step(state: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        new, metrics = checked_result(train_step(state, batch))
        if isinstance(getattr(state, "opt_state", None), NamedState):
            new = new.replace(step=state.step + 1)
        return new, metrics

    return step


def predict_body(predict_step: PredictStep, state: Any, place: Any, batch: Batch) -> Any:
    return predict_step(with_batch_rng(state, "predict", place), batch)


def with_batch_rng(state: Any, phase: str, place: Any) -> Any:
    """The state with the key of one batch in place of the root key; thrown away after the batch.

    That key follows from the root key, the phase and the place of the batch in the data, and from
    nothing else: no step of training moves it, nor how batches are sent off. Validation and test
    are one phase, since they are one compiled step.

    Args:
        state: with the root key, where it has one.
        phase: ``"eval"`` or ``"predict"``.
        place: batches of the data before this one, an integer scalar.
    """
    rng = getattr(state, "rng", None)
    return state if rng is None else state.replace(rng=step_key(rng, phase, place))
