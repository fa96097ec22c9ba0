"""A batch with fewer examples, filled up to the size of those before it: no second compilation.

The evaluation step masks what is filled in, where its metrics have a value for each example. That
is exact unless an example's values depend on the others in its batch, which nobody can see from
outside; so the first such batch is evaluated with two different fillings, and filling goes on only
if all numbers agree to the last bit. Nothing here knows where batches come from.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._chunks import Chunk, Mode, Plan, Rows, stacked
from boltax._base._trees import common_size
from boltax._base._types import Feed, PyTree
from boltax._step._bodies import Evaluation, evaluation_of
from boltax.metrics._accumulate import Metrics, empty_like
from boltax.parallel._placement import ONE_DEVICE, Placement

Evaluate = Callable[[Evaluation, Metrics, Chunk], tuple[Metrics, Any]]
"""The evaluation step; it takes the memory of the metrics."""


@dataclass
class Padding:
    """Whether batches of an evaluation step may be filled up.

    Attributes:
        is_exact: None until it was tried.
        placement: where batches lie.
    """

    is_exact: bool | None = None
    placement: Placement = ONE_DEVICE

    def evaluated(
        self, evaluate: Evaluate, constants: Evaluation, metrics: Metrics, chunk: Chunk, full: Chunk
    ) -> Metrics | None:
        """The metrics with a batch of fewer examples; None when it has to be evaluated as it is.

        Args:
            evaluate: the evaluation step.
            constants: what it reads.
            metrics: those of the batches before; if None is returned they are as they were.
            chunk: the batch.
            full: batches of full size.
        """
        if self.is_exact is False or not _is_shorter(chunk, full):
            return None
        with jax.transfer_guard("allow"):  # of one batch in an evaluation, and some indices
            if self.is_exact is None:
                alone = evaluation_of(constants.state, chunk.size)
                one, other = (
                    evaluate(alone, empty_like(metrics), self._filled(chunk, full, reverse))
                    for reverse in (False, True)
                )
                examples = jax.device_get(one[0].examples).value()  # of several members, too
                is_masked = bool((examples == chunk.size).all())
                self.is_exact = is_masked and _are_equal(one[0], other[0])
            if not self.is_exact:
                return None
            return evaluate(constants, metrics, self._filled(chunk, full))[0]

    def _filled(self, chunk: Chunk, full: Chunk, is_reversed: bool = False) -> Chunk:
        filled = _filled(chunk, full, is_reversed=is_reversed)
        if self.placement.is_host_enough and not isinstance(filled.feed, Rows):
            return filled
        is_stacked = filled.plan.mode is Mode.LOOP
        return replace(filled, feed=self.placement.put_feed(filled.feed, is_stacked=is_stacked))


def _is_shorter(chunk: Chunk, full: Chunk) -> bool:
    """Whether a chunk is a batch with fewer examples, and nothing else is different."""
    if chunk.steps != 1 or chunk.plan.mode is not Mode.SINGLE or chunk.size >= full.size:
        return False
    one, other = (
        jax.tree.map(lambda leaf: (leaf.shape[1:], str(leaf.dtype)), each.form)
        for each in (chunk, full)
    )
    return one == other and common_size(chunk.form) == chunk.size


def _filled(chunk: Chunk, full: Chunk, *, is_reversed: bool = False) -> Chunk:
    """The batch with examples of `full` behind it, in a form that is compiled for that.

    Args:
        chunk: a single batch.
        full: batches of full size.
        is_reversed: whether the examples that fill it up are others: from the end of a batch.
    """
    mode = Mode.LOOP if full.plan.mode is Mode.LOOP else Mode.SINGLE
    plan = Plan(mode, 1, full.plan.capacity)
    if isinstance(chunk.feed, Rows):
        feed: Feed = _filled_rows(chunk.feed, full.size, is_reversed)
        return Chunk(plan, feed, chunk.cursors, chunk.size)
    missing = full.size - chunk.size

    def fill(leaf: PyTree, other: Any) -> Any:
        others = other[::-1][:missing] if is_reversed else other[:missing]
        if isinstance(leaf, np.ndarray):
            return np.concatenate([leaf, np.asarray(others)])
        return jnp.concatenate([leaf, others])

    feed = jax.tree.map(fill, chunk.feed, full.batch(0))
    if mode is Mode.LOOP:
        feed = stacked([feed], plan.capacity)
    return Chunk(plan, feed, chunk.cursors, chunk.size)


def _filled_rows(rows: Rows, size: int, is_reversed: bool) -> Rows:
    """Rows of full size: an order that begins with this last batch, and goes on with others."""
    order, first = jax.device_get((rows.order, rows.first))
    own, others = order[first:], order[:first]
    others = others[::-1] if is_reversed else others
    order: Any = np.concatenate([own, others])
    begin: Any = np.int32(0)
    return Rows(rows.arrays, order, begin, size)


def _are_equal(one: Metrics, other: Metrics) -> bool:
    """Whether all numbers agree to the last bit."""
    leaves = (jax.tree.leaves(jax.device_get(each)) for each in (one, other))
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True)
    )
