"""A batch in parts, one after the other inside a step: the numbers of the whole, in less memory.

    for part in parts:  sums += weight * (loss, gradients);  collections go on;  metrics are kept
    mean loss, mean gradients = sums / sum of weights

The weight of a part is its number of examples, or the count of a loss given as ``(total, count)``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from boltax._base._trees import describe, num_examples, wide
from boltax._base._types import Batch, Carry, Number, Outputs, PyTree, StepMetrics, Variables
from boltax.errors import DataError
from boltax.metrics._accumulate import Metrics, merge, start
from boltax.parallel._devices import is_on_cpu


class Part(NamedTuple):
    """What is found of one part of a batch; of a whole one, when it is the only part.

    Attributes:
        loss: the scalar loss, as the optimizer minimises it.
        weight: what it counts in the mean over the parts.
        metrics: the metrics, as a step returns them.
        variables: the model's variables afterwards.
        sums: what else is averaged, such as gradients.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: StepMetrics
    variables: Variables
    sums: PyTree = ()


def over_parts(
    find: Callable[[Variables, Batch, Number], Part],
    variables: Variables,
    batch: Batch,
    parts: int,
    like: PyTree = (),
) -> Part:
    """What is found of a whole batch, part by part; traced.

    Args:
        find: ``(variables, examples, number of the part) -> Part``.
        variables: the model's variables before; each part goes on with those that the one before
            has left, parameters aside, which stay.
        batch: the batch.
        parts: how many parts. Without a remainder they are equal; else the last one is smaller, or
            there are fewer.
        like: arrays of the shapes and dtypes of the parts' `sums`.
    """
    params, zero = variables["params"], jnp.zeros((), jnp.float32)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x.dtype)), like)

    def one(carry: Carry, part: tuple[Number, Batch]) -> tuple[Carry, Metrics]:
        sums, weights, collections = carry
        found = find({**collections, "params": params}, part[1], part[0])
        weight = found.weight.astype(jnp.float32)

        def add(total: jax.Array, new: jax.Array) -> jax.Array:
            return total + weight.astype(total.dtype) * new.astype(total.dtype)

        sums = jax.tree.map(add, sums, (found.loss, found.sums))
        rest = _without_params(found.variables)
        return (sums, weights + weight, rest), start(found.metrics, num_examples(part[1]))

    carry = (zero, zeros), zero, _without_params(variables)
    whole, remainder = _split(batch, parts)
    count = num_examples(whole)
    carry, stacked = repeat(one, carry, (jnp.arange(count, dtype=jnp.int32), whole))
    metrics = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]
    if remainder is not None:
        carry, last = one(carry, (jnp.int32(count), remainder))
        metrics.append(last)
    (loss, sums), weights, collections = carry
    weights = jnp.where(weights == 0, 1, weights)
    means = jax.tree.map(lambda x, y: (x / weights.astype(x.dtype)).astype(y.dtype), sums, like)
    values = functools.reduce(merge, metrics).values
    return Part(loss / weights, weights, values, {**collections, "params": params}, means)


def repeat(
    body: Callable[[Carry, PyTree], tuple[Carry, Outputs]], carry: Carry, stacked: PyTree
) -> tuple[Carry, Outputs]:
    """`jax.lax.scan`, or its rounds one after the other in the program where a loop is slow.

    Loops of convolutions are on a CPU: 25 to 40 times, as measured. Without a loop XLA saves no
    memory there, though the barrier asks for one round after the other.
    """
    if not _is_loop_slow(body, carry, jax.tree.map(lambda leaf: leaf[0], stacked)):
        return lax.scan(body, carry, stacked)
    outputs: list[Outputs] = []
    for index in range(len(jax.tree.leaves(stacked)[0])):
        carry, stacked = lax.optimization_barrier((carry, stacked))
        carry, output = body(carry, jax.tree.map(lambda leaf, i=index: leaf[i], stacked))
        outputs.append(output)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *outputs)


def _is_loop_slow(body: Callable[..., Any], *args: PyTree) -> bool:
    if not is_on_cpu():
        return False
    return "conv_general_dilated" in str(jax.make_jaxpr(body)(*args))


def _split(batch: Batch, parts: int) -> tuple[Batch, Batch | None]:
    """The parts ``[parts, size, ...]``, and the smaller last one where there is one.

    Each part takes every n-th example: with a batch on several devices all work on each part.
    """
    examples = num_examples(batch)
    if any(leaf.ndim == 0 for leaf in jax.tree.leaves(batch)):
        raise DataError(
            f"Received LoopOptions(microbatches={parts}) and a batch with {describe(batch)}; "
            "expected arrays [batch, ...] only, which can be divided. Give a number that belongs "
            "to a batch once for each example, or leave out microbatches."
        )
    size = -(-examples // parts)
    count = examples // size
    whole = jax.tree.map(
        lambda leaf: leaf[: count * size].reshape(size, count, *leaf.shape[1:]).swapaxes(0, 1),
        batch,
    )
    if count * size == examples:
        return whole, None
    return whole, jax.tree.map(lambda leaf: leaf[count * size :], batch)


def _without_params(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != "params"}
