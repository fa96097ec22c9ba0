"""Compiles the steps that train, evaluate and predict.

The loop sees one kind of step, ``step(constants, carry, chunk) -> (carry, outputs)``: one or
several of the user's steps, each followed by the accumulation of its metrics and a check that its
loss and gradients are finite, in the same program. What it carries is donated. A step is traced
once for each shape of batch and each way of sending it off (see `_fused`).

Two ways in: `compile_steps` for pure steps, and `host_steps` for steps that must be called as they
are (``debug=True``, or a user's own `create_jitted_functions`), where only the accumulation of
metrics is compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._chunks import Chunk, Mode, Plan, batch_of, one_of
from boltax._base._trees import is_deleted, num_examples
from boltax._base._types import (
    Batch,
    Carry,
    Constants,
    Feed,
    Number,
    Outputs,
    PyTree,
    State,
    StepMetrics,
)
from boltax._step._bodies import (
    Body,
    EvalStep,
    Evaluation,
    PredictStep,
    SizeOf,
    Training,
    TrainStep,
    accumulate,
    add_ended,
    batch_metrics_of,
    checked_result,
    count_of,
    eval_body,
    eval_core,
    is_step_bad,
    predict_body,
    train_body,
    train_core,
    turn_metrics,
    with_batch_rng,
)
from boltax._step._copies import copied
from boltax._step._finite import are_finite
from boltax._step._forms import loop, single, train_loop, unrolled
from boltax._step._fused import Core, FusedStep
from boltax._step._loss_scale import has_overflowed
from boltax._step._padding import Padding
from boltax._step._programs import Compilations, Compiling, Program
from boltax._step._state import trained_params_of, variables_of
from boltax.metrics._accumulate import (
    Metrics,
    SavedMetrics,
    empty_like,
    extend,
    nothing,
    rebuilt,
    start,
)
from boltax.parallel._devices import is_on_cpu
from boltax.parallel._jitted import Shardings
from boltax.parallel._placement import ONE_DEVICE, Placement
from boltax.parallel._places import keeping, stacked, unstacked

LoopForm = Callable[..., tuple[Carry, Outputs]]
"""A loop of steps as traced: ``(body, constants, carry, count, feed) -> (carry, outputs)``."""


_UNOPTIMIZED: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 12):  # which has one way of making fusions only
    _UNOPTIMIZED["xla_cpu_use_fusion_emitters"] = False  # the older way compiles faster


class Step(Protocol):
    """A step as the loop calls it, one or several at a time.

    Attributes:
        is_compiled: whether it takes batches in any form that a compiled program takes: out of a
            data set on the device, or as NumPy arrays.
    """

    is_compiled: bool

    @property
    def flops(self) -> int | None:
        """Operations of matrix products and convolutions in a step; None when nobody knows."""
        ...

    def precompile(
        self,
        constants: Constants,
        carry: Carry,
        feed: Feed,
        distance: int = 1,
        after: Compiling | None = None,
    ) -> Compiling | None:
        """Begins to compile for arguments like these, in the background; see `FusedStep`."""
        ...

    def restart(self) -> None:
        """Forgets what was planned and not executed: another pass over data begins."""
        ...

    def plan(self, distance: int, remaining: int | None, until_due: int | None = None) -> Plan:
        """How to send off the next steps; see `FusedStep.plan`."""
        ...

    def __call__(self, constants: Constants, carry: Carry, chunk: Chunk) -> tuple[Carry, Outputs]:
        """Sends off the steps of a chunk; see `FusedStep`."""
        ...


@dataclass(frozen=True)
class Steps:
    """The steps as the loop calls them.

    Attributes:
        train: ``(until_due, Training(state, metrics), chunk) -> (Training, are_bad)``; what it
            carries is donated. `until_due` are the steps to the next record, ``()`` for none. The
            outputs are bools, one for each step: whether its loss or a gradient was not finite; of
            a loop ``(are_bad, Ended)``, see `train_loop`.
        evaluate: ``(Evaluation(state, examples), metrics, chunk) -> (metrics, ())``; donates the
            metrics.
        predict: ``(state, place, batch) -> outputs``; the place are the batches of the data before
            this one, an int32 scalar, from which random keys follow.
        train_step: ``(state, batch) -> (state, metrics of the batch)``, compiled, nothing donated:
            for users.
        eval_step: ``(state, batch) -> metrics of the batch``, likewise.
        empty_train: ``(state, chunk, saved) -> metrics``: the accumulators for metrics like those
            of these batches: of no batch, or with the values `saved` in a checkpoint.
        empty_eval: the same for evaluation.
        compilations: what was compiled for them.
        padding: fills evaluation batches up, where that is exact.
        merge: adds up two accumulated metrics; donates nothing.
        turn: ends the interval of a record, see `turn_metrics`; donates nothing.
        add_ended: accumulates the intervals that ended in a loop, see there; donates nothing.
        size_of: the number of examples in a batch, on the host.
        placement: where what they take lies.
        are_finite: for each of some arrays whether it is finite, of members for each of them.
    """

    train: Step
    evaluate: Step
    predict: Callable[[State, Number, Batch], PyTree]
    train_step: TrainStep
    eval_step: EvalStep
    empty_train: Callable[[State, Chunk, SavedMetrics | None], PyTree]
    empty_eval: Callable[[State, Chunk, SavedMetrics | None], PyTree]
    compilations: Compilations = field(default_factory=Compilations)
    padding: Padding = field(default_factory=lambda: Padding(is_exact=False))
    merge: Callable[[Metrics, Metrics], Metrics] = field(default_factory=lambda: jax.jit(extend))
    turn: Callable[[Metrics | None, Metrics], tuple[Metrics, Metrics, dict[str, jax.Array]]] = (
        field(default_factory=lambda: jax.jit(partial(turn_metrics, "continue")))
    )
    add_ended: Callable[
        [Metrics | None, jax.Array, Metrics], tuple[Metrics, dict[str, jax.Array]]
    ] = field(default_factory=lambda: jax.jit(add_ended))
    size_of: SizeOf = num_examples
    placement: Placement = ONE_DEVICE
    are_finite: Callable[[list[jax.Array]], list[jax.Array]] = field(
        default_factory=lambda: jax.jit(are_finite)
    )


def compile_steps(
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    *,
    on_nonfinite: str = "continue",
    steps_per_execution: int | str = 1,
    log_every: int = 1,
    compilations: Compilations | None = None,
    tell: Callable[[str], None] = lambda _: None,
    members: int | None = None,
    size_of: SizeOf | None = None,
    placement: Placement = ONE_DEVICE,
    microbatches: int = 1,
) -> Steps:
    """Steps compiled from pure functions.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        eval_step: ``(state, batch) -> metrics``.
        predict_step: ``(state, batch) -> outputs``.
        on_nonfinite: see `LoopOptions`; ``"stop"`` leaves the state as it is from the first step on
            whose loss or gradient is not finite, until the accumulated metrics are new ones.
        steps_per_execution: see `LoopOptions`.
        log_every: steps between two records.
        compilations: announces what is compiled.
        tell: is told how steps are sent off, when that was measured.
        members: for a population of so many: states and accumulated metrics then have a first axis,
            the members, and all see the same batch. Users' own steps stay those of one member.
        size_of: the number of examples in a batch, as the user counts them; None for the length of
            the first axis.
        placement: where states and batches lie.
        microbatches: into how many parts a training step divides its batch.
    """
    # The inner jits are what users call; the outer ones find their traces, so each step is traced
    # only once.
    train_step, eval_step = (jax.jit(placement.dividing(step)) for step in (train_step, eval_step))
    predict = partial(predict_body, placement.dividing(predict_step))
    compilations = compilations or Compilations()
    fused = partial(
        compile_fused,
        compilations=compilations,
        wanted=steps_per_execution,
        tell=tell,
        placement=placement,
    )
    train = partial(train_body, train_step, on_nonfinite, size_of)
    evaluate = partial(eval_body, eval_step, size_of)
    plain = partial(train_body, train_step, "continue", size_of) if on_nonfinite == "stop" else None
    # Not by name: JAX keeps the signature of what it compiles, and with it values bound by name.
    train_many: LoopForm = partial(train_loop, plain, log_every)
    train_metrics, eval_metrics = (
        partial(batch_metrics_of, step, is_train, size_of)
        for step, is_train in ((train_step, True), (eval_step, False))
    )
    core_of_train, core_of_eval = partial(train_core, train_step), partial(eval_core, eval_step)
    of = ""
    if members is not None:
        of = f" of {members} members"
        train, train_many = jax.vmap(train, in_axes=(None, 0, None)), loop
        evaluate = jax.vmap(evaluate, in_axes=(Evaluation(0, None), 0, None))
        train_metrics, eval_metrics = (
            jax.vmap(metrics, in_axes=(0, None)) for metrics in (train_metrics, eval_metrics)
        )
        core_of_train = jax.vmap(core_of_train, in_axes=(None, 0, None))
        core_of_eval = jax.vmap(core_of_eval, in_axes=(Evaluation(0, None), None, None))
    return Steps(
        train=fused(
            train,
            f"train step{of}",
            many=train_many,
            core=core_of_train,
            check=None
            if placement.is_one
            else partial(placement.check_batch, microbatches=microbatches),
        ),
        evaluate=fused(evaluate, f"evaluation step{of}", core=core_of_eval, may_be_ragged=True),
        predict=_compile_predict(predict, compilations, placement),
        train_step=train_step,
        eval_step=eval_step,
        empty_train=_empty(partial(jax.eval_shape, train_metrics), placement),
        empty_eval=_empty(partial(jax.eval_shape, eval_metrics), placement),
        compilations=compilations,
        padding=Padding(placement=placement),
        size_of=size_of or num_examples,
        placement=placement,
        **(_around_on_one if placement.is_one else _around)(
            on_nonfinite, members is not None, placement
        ),
    )


def _around(on_nonfinite: str, has_members: bool, placement: Placement) -> dict[str, Any]:
    """What is compiled around the steps, by its name in `Steps`."""
    each: Callable[..., Any] = jax.vmap if has_members else lambda function: function
    return {
        "turn": placement.jit_whole(each(partial(turn_metrics, on_nonfinite))),
        "merge": placement.jit_whole(each(extend)),
        "add_ended": placement.jit_whole(add_ended),
        "are_finite": placement.jit_whole(each(are_finite)),
    }


_around_on_one = lru_cache(maxsize=8)(_around)
"""The same for all trainers that have the same metrics: nothing in it is of a model."""


def compile_fused(
    body: Body,
    name: str,
    *,
    compilations: Compilations,
    wanted: int | str,
    tell: Callable[[str], None] = lambda _: None,
    may_be_ragged: bool = False,
    many: LoopForm = loop,
    placement: Placement = ONE_DEVICE,
    check: Callable[[PyTree], None] | None = None,
    core: Core | None = None,
) -> FusedStep:
    """Compiles a step in its three forms; see `FusedStep`.

    Args:
        body: one step.
        name: names it to people.
        compilations: announces what is compiled.
        wanted: ``"auto"``, or the number of steps in a dispatch.
        tell: is told what was chosen.
        may_be_ragged: whether batches of other sizes are to be expected.
        many: how it stands in a loop.
        placement: where what it takes lies.
        check: see `FusedStep`.
        core: see `FusedStep`.
    """
    forms = {Mode.SINGLE: single, Mode.LOOP: many, Mode.UNROLLED: unrolled}
    programs = {
        mode: Program(
            placement.jit(partial(form, body), _dispatched(placement, mode), donate=(1,)),
            name,
            compilations,
            may_be_ragged=may_be_ragged,
            one_of=partial(one_of, mode),
        )
        for mode, form in forms.items()
    }
    return FusedStep(
        programs, wanted=wanted, name=name, tell=tell, placement=placement, check=check, core=core
    )


def _dispatched(placement: Placement, mode: Mode) -> Shardings:
    """Where lies what a dispatch takes and gives: the carry stays where it is."""

    def shardings(constants: Constants, carry: Carry, *rest: Any) -> tuple[Any, Any]:
        *counts, feed = rest
        held, is_stacked = placement.held(carry), mode is Mode.LOOP
        feeds = placement.of_feed(feed, is_stacked=is_stacked)
        arriving = (placement.held(constants), held, *(placement.whole for _ in counts), feeds)
        return arriving, (held, placement.whole)

    return shardings


def _compile_predict(
    predict: Callable[[State, Number, Batch], PyTree],
    compilations: Compilations,
    placement: Placement,
) -> Program:
    def shardings(state: State, place: Number, batch: Batch) -> tuple[Any, Any]:
        outputs = jax.eval_shape(predict, state, place, batch)
        arriving = (placement.held(state), placement.whole, placement.of_feed(batch))
        return arriving, placement.of_feed(outputs)

    jitted = placement.jit(predict, shardings)
    return Program(jitted, "prediction step", compilations, may_be_ragged=True)


class _HostStep:
    """A step that is called as it is, once for each batch."""

    is_compiled = False
    flops = None

    def __init__(self, body: Body) -> None:
        self._body = body

    def precompile(self, *_: Any, **__: Any) -> None:
        """Does nothing: nothing is compiled."""

    def restart(self) -> None:
        """Does nothing: nothing is planned."""

    def plan(self, distance: int, remaining: int | None, until_due: int | None = None) -> Plan:
        """One step at a time."""
        return Plan()

    def __call__(self, constants: Constants, carry: Carry, chunk: Chunk) -> tuple[Carry, Outputs]:
        """Calls the step."""
        return self._body(constants, carry, batch_of(chunk.feed))


def host_steps(
    train_step: TrainStep,
    eval_step: EvalStep,
    predict_step: PredictStep,
    *,
    on_nonfinite: str,
    size_of: SizeOf | None = None,
) -> Steps:
    """Steps that call the functions as they are, and compile only what follows them.

    A step that has taken the memory of the old state cannot be undone: then a state that is not
    finite stays.
    """
    add = jax.jit(accumulate, static_argnums=2, donate_argnums=0)
    is_bad_step = jax.jit(is_step_bad)

    def none_of(metrics: PyTree, batch_metrics: StepMetrics, count: int) -> PyTree:
        """The metrics as they are; before the first step they learn their names."""
        if isinstance(metrics, SavedMetrics) or metrics.names:
            return metrics
        return empty_like(jax.eval_shape(partial(start, num_examples=count), batch_metrics))

    def train(_: Constants, carry: Training, batch: Batch) -> tuple[Training, jax.Array]:
        state, metrics = carry
        new, batch_metrics = checked_result(train_step(state, batch))
        count = count_of(size_of, batch, batch_metrics)
        is_overflow = has_overflowed(state, new)
        if is_overflow is not None and jax.device_get(is_overflow):
            return Training(new, none_of(metrics, batch_metrics, count)), jnp.zeros((), bool)
        is_bad = is_bad_step(batch_metrics, trained_params_of(new))
        if on_nonfinite != "continue" and not is_deleted(state) and jax.device_get(is_bad):
            return carry, is_bad
        if isinstance(metrics, SavedMetrics):
            like = jax.eval_shape(partial(start, num_examples=count), batch_metrics)
            metrics = rebuilt(metrics, like)
        return Training(new, add(metrics, batch_metrics, count)), is_bad

    def evaluate(
        constants: Evaluation, metrics: Metrics, batch: Batch
    ) -> tuple[Metrics, tuple[()]]:
        state = with_batch_rng(constants.state, "eval", metrics.batches)
        batch_metrics = eval_step(state, batch)
        return add(metrics, batch_metrics, count_of(size_of, batch, batch_metrics)), ()

    # The shapes of the metrics are not known before the functions have run, and running them twice
    # could be seen.
    none = _empty(lambda *_: nothing())

    def empty(state: State, chunk: Chunk, saved: SavedMetrics | None) -> PyTree:
        return none(state, chunk, None) if saved is None else saved

    predict = partial(predict_body, predict_step)
    return Steps(
        _HostStep(train),
        _HostStep(evaluate),
        predict,
        train_step,
        eval_step,
        empty,
        empty,
        size_of=size_of or num_examples,
    )


def compile_init(function: Callable[..., PyTree], **options: Any) -> Callable[..., PyTree]:
    """Compiles a function that runs once, such as one that makes variables.

    On a CPU without optimizations, which take longer there than they can win back.

    Args:
        function: it.
        **options: further ones of `jax.jit`.
    """
    is_cpu = is_on_cpu()
    return jax.jit(function, compiler_options=_UNOPTIMIZED if is_cpu else None, **options)


def compile_create(
    function: Callable[[PyTree], PyTree], placement: Placement = ONE_DEVICE
) -> Callable[[PyTree], PyTree]:
    """Compiles a function from a state to a new one; donating the old keeps buffers apart."""

    def shardings(state: State) -> tuple[Any, Any]:
        new = jax.eval_shape(function, state)
        return (placement.held(state),), placement.of_state(new, variables_of(state))

    # preflight traces it: no options for the compiler
    return placement.jit(function, shardings, donate=(0,))


def compile_members() -> "MemberFunctions":
    """Compiles what moves the members of a population about on the device."""

    def gather(groups: tuple[PyTree, ...], index: jax.Array) -> PyTree:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[index], *groups)

    def choose(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
        def one(left: jax.Array, right: jax.Array) -> jax.Array:
            shape = condition.shape + (1,) * (left.ndim - condition.ndim)
            return jnp.where(condition.reshape(shape), left, right)

        return jax.tree.map(one, yes, no)

    def stack(*trees: PyTree) -> PyTree:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def one(tree: PyTree, index: jax.Array) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    def copy(tree: PyTree) -> PyTree:  # of its own, since JAX keeps programs of what lives on
        return copied(tree)

    return MemberFunctions(
        stack=keeping(stack, lambda first, *_: stacked(first)),
        gather=keeping(gather, lambda groups, _: groups[0]),
        one=keeping(one, lambda tree, _: unstacked(tree)),
        choose=keeping(choose, lambda *trees: trees[2], donate=(2,)),
        copy=keeping(copy, lambda tree: tree),
    )


@dataclass(frozen=True)
class MemberFunctions:
    """What moves the members of a population about on the device, compiled.

    Attributes:
        stack: ``(*trees) -> tree`` with a first axis, the trees.
        gather: ``(trees with a first axis, index [n]) -> tree``: rows of all of them, one behind
            the other.
        one: ``(tree with a first axis, index []) -> tree``: a row.
        choose: ``(condition [n] or [], yes, no) -> tree``; takes the memory of the last.
        copy: ``(tree) -> tree`` in memory of its own.

    An index or a condition may be one of NumPy's, which goes to wherever the trees are.
    """

    stack: Callable[..., PyTree]
    gather: Callable[[tuple[PyTree, ...], Number], PyTree]
    one: Callable[[PyTree, Number], PyTree]
    choose: Callable[[Number, PyTree, PyTree], PyTree]
    copy: Callable[[PyTree], PyTree]


def compile_per_member(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Compiles a function of one member for all members of a population, ``[members, ...]``.

    What it gives lies on a mesh as the first of its arguments does.
    """
    return keeping(jax.vmap(function), lambda first, *_: first)


def _empty(
    shapes_of: Callable[[State, Batch], Metrics], placement: Placement = ONE_DEVICE
) -> Callable[[State, Chunk, SavedMetrics | None], Metrics]:
    """Makes zeros on the host, which a program takes in a tenth of the time of `jax.device_put`.

    All batches have the same, so shapes are asked for once.
    """
    known: list[Metrics] = []

    def empty(state: State, chunk: Chunk, saved: SavedMetrics | None) -> Metrics:
        if not known:
            known.append(shapes_of(state, chunk.form))
        zeros = jax.tree.map(lambda form: np.zeros(form.shape, form.dtype), known[0])
        return zeros if saved is None else rebuilt(saved, zeros, placement)

    return empty
