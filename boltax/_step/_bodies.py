"""One step as it is traced: the user's step, then the accumulation of its metrics and a check.

Pure functions ``(constants, carry, batch) -> (carry, outputs)``; `_steps` compiles them, one or
several to a program.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from boltax._base._chunks import batch_of
from boltax._base._keys import step_key
from boltax._base._trees import choose, common_size, num_examples, tree_bytes
from boltax._base._types import Batch, Carry, Constants, Number, Outputs, PyTree, State, StepMetrics
from boltax._step._loss_scale import has_overflowed
from boltax._step._metric_names import check_names
from boltax._step._state import params_of, trained_params_of
from boltax.errors import ConfigurationError, TrainingError
from boltax.metrics._accumulate import Metrics, empty_like, extend, pack, start
from boltax.metrics._means import are_per_example
from boltax.metrics._occurrences import Occurrences
from boltax.metrics._totals import IntTotal
from boltax.optim._adapt import optax_promotion
from boltax.optim._named import NamedState
from boltax.optim._spikes import number_of_spikes
from boltax.parallel._devices import is_on_cpu

TrainStep = Callable[[State, Batch], tuple[State, StepMetrics]]
EvalStep = Callable[[State, Batch], StepMetrics]
PredictStep = Callable[[State, Batch], PyTree]
Body = Callable[[Constants, Carry, Batch], tuple[Carry, Outputs]]
"""One step: ``(constants, carry, batch) -> (carry, outputs)``."""

SizeOf = Callable[[Batch], int]
"""The number of examples in a batch, as the user counts them."""

SPIKES = "loss_spikes"
"""The metric of an optimizer that looks for spikes of the loss."""

OF_THE_STEP = ("l2_penalty", "grad_norm", "loss_scale", "param_norm", "update_norm")
"""Metrics that boltax adds, of a step and not of its examples."""

MOST_WHOLE = 64 * 2**20
"""Bytes of a state that is copied sooner than chosen array by array."""


class Training(NamedTuple):
    """What a training step carries on."""

    state: State
    metrics: PyTree


class Evaluation(NamedTuple):
    """What an evaluation step reads.

    Attributes:
        state: the training state.
        examples: how many the metrics are to hold after this dispatch, int32, modulo 2**31: what
            stands behind them in a batch fills it up. Metrics that have no value for each example
            count all.
    """

    state: State
    examples: Number


def evaluation_of(state: State, examples: int) -> Evaluation:
    """What an evaluation step reads, after so many examples; see `Evaluation`."""
    return Evaluation(state, np.int32(examples % 2**31))


def train_body(
    train_step: TrainStep,
    on_nonfinite: str,
    size_of: SizeOf | None,
    _: Constants,
    carry: Training,
    batch: Batch,
) -> tuple[Training, jax.Array]:
    state, metrics = carry
    new, batch_metrics = checked_result(train_step(state, batch))
    own = after(params_of(new), start(batch_metrics, count_of(size_of, batch, batch_metrics)))
    extended = added(metrics, own)
    is_bad = is_step_bad(batch_metrics, trained_params_of(new))
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


def after(first: PyTree, second: PyTree) -> PyTree:
    """The second, for what is computed of it once the first is there: on a CPU.

    Beside the update small operations on it would take a small MLP's step a seventh longer, and on
    a busy machine twice as long: XLA runs those that do not wait for each other on several threads,
    and passes the data between them.
    """
    if not is_on_cpu():
        return second
    return lax.optimization_barrier((first, second))[1]


def is_taken_whole(carry: Training) -> bool:
    """Whether the result of a step is taken or left in one piece, and not chosen array by array.

    So the step is compiled to the same arithmetic as where nothing is chosen. On a CPU that is a
    copy of the state; on an accelerator the host would have to wait for the decision.
    """
    return is_on_cpu() and tree_bytes(carry) <= MOST_WHOLE


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

    def add(row: Number, before: Metrics) -> Metrics:
        return extend(before, jax.tree.map(lambda rows: rows[row], ended))

    whole = lax.fori_loop(0, number, add, empty if accumulated is None else accumulated)
    return whole, jax.vmap(pack)(ended)


def completed(train_step: TrainStep, *, has_ema: bool, log_norms: bool) -> TrainStep:
    """A user's step, with what boltax computes beside any: the average of parameters, and norms.

    Args:
        train_step: the step.
        has_ema: whether the state keeps an average.
        log_norms: whether the norms of the trained parameters and of their change are metrics.
    """

    def step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        new, metrics = checked_result(train_step(state, batch))
        if log_norms:
            metrics = {**metrics, **_norms(trained_params_of(state), trained_params_of(new))}
        metrics = {**metrics, **_spikes(state, new, metrics)}
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

    return step


def _spikes(before: State, after: State, metrics: StepMetrics) -> StepMetrics:
    """Whether the loss of this step is a spike, where the optimizer looks."""
    number = number_of_spikes(getattr(after, "opt_state", None))
    earlier = number_of_spikes(getattr(before, "opt_state", None))
    if number is None or earlier is None:
        return {}
    step, is_spike = after.step, number > earlier
    if (scale := getattr(after, "loss_scale", None)) is not None:
        step = step + scale.overflows  # which the state has not counted
    return check_names({SPIKES: Occurrences.at(step, is_spike)}, "on_spike", metrics)


def _norms(before: PyTree, after: PyTree) -> dict[str, jax.Array]:
    with optax_promotion():
        update = optax.tree.sub(after, before)
        return {"param_norm": optax.tree.norm(after), "update_norm": optax.tree.norm(update)}


def is_step_bad(batch_metrics: StepMetrics, params: PyTree) -> jax.Array:
    """Whether the loss or the gradients are not finite; without their norm the parameters tell."""
    suspects = (batch_metrics.get("loss"), batch_metrics.get("grad_norm", params))
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(suspects)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    return ~jnp.stack(finite).all() if finite else jnp.zeros((), bool)


def eval_body(
    eval_step: EvalStep,
    size_of: SizeOf | None,
    constants: Evaluation,
    metrics: Metrics,
    batch: Batch,
) -> tuple[Metrics, tuple[()]]:
    batch_metrics = eval_step(with_batch_rng(constants.state, "eval", metrics.batches), batch)
    size = count_of(size_of, batch, batch_metrics)
    real = None
    if are_per_example(batch_metrics, size):
        real = _missing(constants.examples, metrics.examples, size)
    return accumulate(metrics, batch_metrics, size, real), ()


def _missing(wanted: jax.Array, seen: IntTotal, size: int) -> jax.Array:
    """How many examples are to come, 0 to `size`: numbers that are close, if known modulo 2**31."""
    half = 2**30
    return jnp.clip(((wanted - seen.words[1] + half) & (2**31 - 1)) - half, 0, size)


def accumulate(
    metrics: Metrics, batch_metrics: StepMetrics, count: int, real: jax.Array | None = None
) -> Metrics:
    return added(metrics, start(batch_metrics, count, real))


def added(metrics: Metrics, new: Metrics) -> Metrics:
    """`extend`, where the metrics may not know their names yet."""
    return extend(metrics, new) if metrics.names or not new.names else new


def count_of(size_of: SizeOf | None, batch: Batch, batch_metrics: StepMetrics) -> int:
    """The number of examples in a batch, by which its metrics are weighted.

    Args:
        size_of: how the user counts them; None for the length of the first axis.
        batch: the batch.
        batch_metrics: its metrics. Where leaves do not agree on the first axis, each has to count
            for itself, and the batch is one example.

    Raises:
        DataError: when leaves do not agree, and a metric has no count of its own.
    """
    if size_of is not None:
        return size_of(batch)
    is_counted = all(
        isinstance(value, tuple) or hasattr(value, "merge") or name in OF_THE_STEP
        for name, value in batch_metrics.items()
    )
    return 1 if is_counted and common_size(batch) is None else num_examples(batch)


def batch_metrics_of(
    step: Callable[[State, Batch], PyTree],
    is_train: bool,
    size_of: SizeOf | None,
    state: State,
    batch: Batch,
) -> Metrics:
    result = step(state, batch)
    batch_metrics = checked_result(result)[1] if is_train else result
    return start(batch_metrics, count_of(size_of, batch, batch_metrics))


def train_core(train_step: TrainStep, _: Constants, carry: Training, batch: Batch) -> PyTree:
    """The user's part of a training step."""
    return train_step(carry.state, batch)


def eval_core(eval_step: EvalStep, constants: Evaluation, _: Metrics, batch: Batch) -> PyTree:
    """The user's part of an evaluation step."""
    return eval_step(constants.state, batch)


def checked_result(result: PyTree) -> tuple[State, StepMetrics]:
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise TrainingError(
        f"Received {type(result).__name__} from train_step; expected a pair (state, metrics). "
        "End the train_step of create_functions with: return state, metrics"
    )


def counted_once(train_step: TrainStep) -> TrainStep:
    """`train_step`; with several optimizers its state is one step on, whatever it has updated."""

    @functools.wraps(train_step)
    def step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        new, metrics = checked_result(train_step(state, batch))
        if isinstance(getattr(state, "opt_state", None), NamedState):
            new = new.replace(step=state.step + 1)
        return new, metrics

    return step


def predict_body(predict_step: PredictStep, state: State, place: Number, batch: Batch) -> PyTree:
    return predict_step(with_batch_rng(state, "predict", place), batch_of(batch))


def with_batch_rng(state: State, phase: str, place: Number) -> State:
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
