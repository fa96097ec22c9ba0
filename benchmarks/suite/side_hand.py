"""The loops written by hand in JAX, without any library for training.

`donated` is the reference of all ratios: state and metrics are donated, steps are dispatched
without waiting, and metrics add up on the device. `plain` is the loop of a first notebook: nothing
is donated and the loss is read after each step. `fused` takes many steps in one call.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from suite.batches import passes
from suite.linen_models import make_model, make_optimizer, per_example
from suite.rounds import NotOfferedError, Rounds
from suite.tasks import Arrays, Task, make_data

State = tuple[Any, Any, Any]
"""Parameters, other variables, state of the optimizer."""


def plain(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """Each step is waited for."""
    loop = _Loop(task, data)
    step = jax.jit(lambda state, batch: loop.step(state, (0.0, 0.0), batch))
    evaluate = jax.jit(lambda state, batch: loop.evaluate(state, (0.0, 0.0), batch))

    def train(state: State) -> tuple[State, Any]:
        loss = hits = 0.0
        for batch in islice(loop.train_batches(), rounds.max_steps):
            state, (one_loss, one_hits) = step(state, batch)
            loss, hits = loss + float(one_loss), hits + float(one_hits)
        return state, (loss, hits)

    def test(state: State) -> Any:
        totals = np.zeros(2)
        for batch in loop.eval_batches():
            totals += [float(total) for total in evaluate(state, batch)]
        return totals

    _run(loop, rounds, train, test)


def donated(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """The reference."""
    loop = _Loop(task, data)
    step = jax.jit(loop.step, donate_argnums=(0, 1))
    test = _asynchronous_evaluation(loop)

    def train(state: State) -> tuple[State, Any]:
        totals = _zeros()
        for batch in islice(loop.train_batches(), rounds.max_steps):
            state, totals = step(state, totals, batch)
        return state, totals

    _run(loop, rounds, train, test)


def fused(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """`task.fuse` steps in one call, over their batches stacked on the host."""
    if data != "memory":
        raise NotOfferedError("reads arrays only")
    loop = _Loop(task, data)
    unroll = task.fuse if task.is_unrolled else 1
    batch, size, rng = task.batch, task.fuse * task.batch, np.random.default_rng(1)

    def many(state: State, totals: Any, batches: Any) -> tuple[State, Any]:
        def body(carry: Any, batch: Any) -> tuple[Any, None]:
            return loop.step(*carry, batch), None

        return jax.lax.scan(body, (state, totals), batches, unroll=unroll)[0]

    def many_evaluations(state: State, totals: Any, batches: Any) -> Any:
        def body(totals: Any, batch: Any) -> tuple[Any, None]:
            return loop.evaluate(state, totals, batch), None

        return jax.lax.scan(body, totals, batches, unroll=unroll)[0]

    step = jax.jit(loop.step, donate_argnums=(0, 1))
    steps = jax.jit(many, donate_argnums=(0, 1))
    evaluate = jax.jit(loop.evaluate, donate_argnums=1)
    evaluations = jax.jit(many_evaluations, donate_argnums=1)

    def stacks(arrays: Arrays, order: np.ndarray) -> Any:
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size].reshape(task.fuse, batch)
            yield True, tuple(array[rows] for array in arrays)
        for start in range(len(order) // size * size, len(order), batch):
            yield False, tuple(array[order[start : start + batch]] for array in arrays)

    def train(state: State) -> tuple[State, Any]:
        totals = _zeros()
        for is_many, stack in stacks(loop.train_data, rng.permutation(task.steps * batch)):
            state, totals = (steps if is_many else step)(state, totals, stack)
        return state, totals

    def test(state: State) -> Any:
        totals = _zeros()
        for is_many, stack in stacks(loop.eval_data, np.arange(task.eval_batches * batch)):
            totals = (evaluations if is_many else evaluate)(state, totals, stack)
        return totals

    _run(loop, rounds, train, test)


class _Loop:
    """What the loops share: the pure steps, the data, the first state."""

    def __init__(self, task: Task, data: str) -> None:
        self.task = task
        self.model, self.optimizer = make_model(task), make_optimizer()
        self.train_data, self.eval_data = make_data(task)
        self.train_batches = passes(self.train_data, data, task.batch, shuffle=True)
        self.eval_batches = passes(self.eval_data, data, task.batch, shuffle=False)

    def start(self) -> State:
        inputs = self.train_data[0][: self.task.batch]

        @jax.jit
        def init(key: jax.Array) -> State:
            variables = dict(self.model.init(key, inputs))
            params = variables.pop("params")
            return params, variables, self.optimizer.init(params)

        return init(jax.random.key(0))

    def step(self, state: State, totals: Any, batch: Any) -> tuple[State, Any]:
        params, others, opt_state = state
        inputs, labels = batch

        def loss_of(params: Any) -> tuple[Any, Any]:
            variables = {"params": params, **others}
            logits, changed = self.model.apply(variables, inputs, train=True, mutable=list(others))
            loss, hits = per_example(logits, labels)
            return loss.mean(), (hits.mean(), changed)

        (loss, (hits, others)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, dict(others), opt_state), (totals[0] + loss, totals[1] + hits)

    def evaluate(self, state: State, totals: Any, batch: Any) -> Any:
        inputs, labels = batch
        logits = self.model.apply({"params": state[0], **state[1]}, inputs)
        loss, hits = per_example(logits, labels)
        return totals[0] + loss.mean(), totals[1] + hits.mean()


def _run(
    loop: _Loop,
    rounds: Rounds,
    train: Callable[[State], tuple[State, Any]],
    test: Callable[[State], Any],
) -> None:
    state, task = loop.start(), loop.task
    for _ in range(rounds.number):
        rounds.begin()
        state, totals = jax.block_until_ready(train(state))
        loss, hits = (float(total) / task.steps for total in totals)
        rounds.trained(loss=loss, acc=hits, steps=task.steps)
        loss, hits = (float(total) / task.eval_batches for total in test(state))
        rounds.evaluated(eval_loss=loss, eval_acc=hits)


def _asynchronous_evaluation(loop: _Loop) -> Callable[[State], Any]:
    evaluate = jax.jit(loop.evaluate, donate_argnums=1)

    def test(state: State) -> Any:
        totals = _zeros()
        for batch in loop.eval_batches():
            totals = evaluate(state, totals, batch)
        return totals

    return test


@jax.jit
def _zeros() -> tuple[jax.Array, jax.Array]:
    return jnp.zeros(()), jnp.zeros(())
