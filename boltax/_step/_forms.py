"""One or several steps as a program has them, as it is traced; `_steps` compiles them.

The batch is kept apart from where it comes from: with the barrier a step is compiled to the same
arithmetic in all programs, so that they give the same numbers to the last bit.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from boltax._base._chunks import Rows, batch_at, batch_of
from boltax._base._trees import choose
from boltax._base._types import Carry, Constants, Feed, Number, Outputs
from boltax._step._bodies import Body, Training, is_taken_whole
from boltax._step._fused import MOST_STEPS
from boltax.metrics._accumulate import Metrics, empty_like

_NEVER = 2**30


def single(body: Body, constants: Constants, carry: Carry, feed: Feed) -> tuple[Carry, Outputs]:
    """One step."""
    return body(constants, carry, lax.optimization_barrier(batch_of(feed)))


def unrolled(
    body: Body, constants: Constants, carry: Carry, feeds: tuple[Feed, ...]
) -> tuple[Carry, Outputs]:
    """One step after the other."""
    collected: list[Any] = []
    for feed in feeds:
        carry, outputs = single(body, constants, lax.optimization_barrier(carry), feed)
        collected.append(outputs)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *collected)


def loop(
    body: Body, constants: Constants, carry: Carry, count: jax.Array, feed: Feed
) -> tuple[Carry, Outputs]:
    """The first `count` batches of a stack: any number of steps in the same program."""

    def one(index: Number, before: tuple[Any, Any]) -> tuple[Carry, Outputs]:
        carry, collected = before
        batch = lax.optimization_barrier(batch_at(feed, index))
        carry, outputs = body(constants, carry, batch)
        collected = jax.tree.map(lambda all_, new: all_.at[index].set(new), collected, outputs)
        return carry, collected

    capacity = _capacity(feed)
    _, outputs = jax.eval_shape(body, constants, carry, jax.eval_shape(batch_at, feed, 0))
    nothing = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), outputs)
    return lax.fori_loop(0, count, one, (carry, nothing))


class Ended(NamedTuple):
    """The intervals of records that ended in a loop.

    Attributes:
        number: how many, int32.
        metrics: theirs, ``[number or more, ...]``.
    """

    number: jax.Array
    metrics: Metrics


class _Steps(NamedTuple):
    """How far a loop of training steps has come."""

    done: jax.Array
    is_bad: jax.Array
    carry: Training
    are_bad: jax.Array


class _Intervals(NamedTuple):
    """How far their intervals have: `begun` is the row of the one that runs."""

    steps: _Steps
    begun: jax.Array
    ended: Ended


def train_loop(
    plain: Body | None,
    every: int,
    body: Body,
    until_due: jax.Array | tuple[()],
    carry: Training,
    count: jax.Array,
    feed: Feed,
) -> tuple[Training, tuple[jax.Array, Ended]]:
    """`loop` for training steps, in which the intervals of records end.

    Args:
        plain: where training ends with the first bad step, the step that leaves none out. Then the
            loop is left at a bad step, and the steps before it are done once more from the start,
            if the state may be copied: once for all of them, where else each step has to choose.
        every: steps in an interval.
        body: the step.
        until_due: int32, steps to the end of the first interval; ``()`` when none ends.
        carry: what the steps change.
        count: steps to do, int32.
        feed: their batches.

    Returns:
        The new carry, whether each step was bad ``[count or more]``, and the intervals.
    """
    capacity = _capacity(feed)
    first_due = jnp.int32(_NEVER) if isinstance(until_due, tuple) else until_due
    is_left = plain is not None and is_taken_whole(carry)
    step = plain if plain is not None and is_left else body

    def is_on(steps: _Steps, end: jax.Array) -> jax.Array:
        return (steps.done < end) & ~steps.is_bad if is_left else steps.done < end

    def one(steps: _Steps) -> _Steps:
        batch = lax.optimization_barrier(batch_at(feed, steps.done))
        carry, is_bad = step((), steps.carry, batch)
        are_bad = steps.are_bad if is_left else steps.are_bad.at[steps.done].set(is_bad)
        return _Steps(steps.done + 1, is_bad, carry, are_bad)

    def to(limit: jax.Array) -> _Intervals:
        def interval(before: _Intervals) -> _Intervals:
            due = first_due + before.begun * every
            end = jnp.minimum(limit, due)
            steps = lax.while_loop(partial(is_on, end=end), one, before.steps)
            metrics = steps.carry.metrics
            has_ended = steps.done == due
            if is_left:
                has_ended &= ~steps.is_bad
            elif plain is not None:
                has_ended &= metrics.left_out == 0
            ended = Ended(
                jnp.where(has_ended, before.begun + 1, before.ended.number),
                jax.tree.map(
                    lambda rows, new: rows.at[before.begun].set(new), before.ended.metrics, metrics
                ),
            )
            metrics = choose(has_ended, empty_like(metrics), metrics)
            steps = steps._replace(carry=steps.carry._replace(metrics=metrics))
            return _Intervals(steps, before.begun + 1, ended)

        return lax.while_loop(lambda now: is_on(now.steps, limit), interval, begin)

    zero, rows = jnp.int32(0), capacity // every + 1
    nothing = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), carry.metrics)
    first = _Steps(zero, jnp.bool_(False), carry, jnp.zeros(capacity, bool))
    begin = _Intervals(first, zero, Ended(zero, nothing))

    if not is_left:
        done = to(count)
        return done.steps.carry, (done.steps.are_bad, done.ended)

    def attempt(before: tuple[jax.Array, _Intervals]) -> tuple[jax.Array, _Intervals]:
        done = to(before[0])
        return done.steps.done - done.steps.is_bad.astype(jnp.int32), done

    # A loop, so that the steps stand in the program once: it is gone through a second time, up to
    # the bad step, where there was one.
    limit = jnp.where(carry.metrics.left_out > 0, 0, count)
    again = begin._replace(steps=begin.steps._replace(is_bad=jnp.bool_(True)))
    good, done = lax.while_loop(lambda now: now[1].steps.is_bad, attempt, (limit, again))
    carry, are_bad = done.steps.carry, (jnp.arange(capacity) == good) & (good < limit)
    left_out = carry.metrics.left_out + count - good
    metrics = dataclasses.replace(carry.metrics, left_out=left_out)
    return carry._replace(metrics=metrics), (are_bad, done.ended)


def _capacity(feed: Feed) -> int:
    """Of how many batches a feed has room for."""
    return MOST_STEPS if isinstance(feed, Rows) else jax.tree.leaves(feed)[0].shape[0]
