"""Between the gradients of a step and the optimizer: `TrainerModule.on_gradients`. Traced.

    gradients, metrics = on_gradients(gradients, loss=..., state=..., updates=...)

It comes once for each step: behind the mean over microbatches and the division by the scale of the
loss, and before clipping, which belongs to the optimizer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._trees import describe_leaf, path_name
from boltax._base._types import PyTree, StepMetrics
from boltax._step._metric_names import check_names
from boltax._step._microbatches import Part
from boltax._step._state import TrainState, updates_of
from boltax.errors import TrainingError, noting
from boltax.metrics._means import is_mergeable

GradientHook = Callable[..., Any]
"""`TrainerModule.on_gradients`."""


def through_hook(
    hook: GradientHook,
    owner: str,
    state: TrainState,
    found: Part,
    value_fn: Callable[[PyTree], jax.Array],
) -> Part:
    """What was found of a batch, with the gradients and metrics that a user's hook makes of it.

    Args:
        hook: see `TrainerModule.on_gradients`.
        owner: the trainer's class name.
        state: the state before the step.
        found: loss, metrics, and gradients as `sums`.
        value_fn: ``params -> loss``.

    Raises:
        TrainingError: for gradients of another form.
        MetricsError: for metrics that cannot be.
    """
    where = f"on_gradients of {owner}"

    def updates(gradients: PyTree) -> PyTree:
        fitting = _fitting(gradients, found.sums, where)
        return updates_of(state, fitting, loss=found.loss, value_fn=value_fn)

    with noting(where):
        result: Any = hook(found.sums, loss=found.loss, state=state, updates=updates)
        is_pair = isinstance(result, tuple) and len(result) == 2
        gradients, metrics = result if is_pair else (result, {})
        own = check_names(metrics, where, found.metrics, "(gradients, metrics)")
        fitting = _fitting(gradients, found.sums, where)
        return found._replace(sums=fitting, metrics={**found.metrics, **_by_step(own)})


def _by_step(metrics: Mapping[str, Any]) -> StepMetrics:
    """Numbers count once for each step, whatever the size of its batch."""
    return {
        name: value if isinstance(value, tuple) or is_mergeable(value) else (value, jnp.int32(1))
        for name, value in metrics.items()
    }


def _fitting(gradients: PyTree, like: PyTree, where: str) -> PyTree:
    """The gradients in the dtypes of those before; refuses those of other parameters."""
    wanted, structure = jax.tree_util.tree_flatten_with_path(like)
    given = dict(jax.tree_util.tree_leaves_with_path(gradients))
    if jax.tree.structure(gradients) != structure:
        wanted_names = {path_name(path, "gradients") for path, _ in wanted}
        names = {path_name(path, "gradients") for path in given}
        odd = sorted(wanted_names ^ names) or [str(jax.tree.structure(gradients))]
        raise _unfitting(f"others for {odd[0]}", where)
    for path, leaf in wanted:
        if jnp.shape(given[path]) != leaf.shape:
            what = f"{path_name(path, 'gradients')}: {describe_leaf(given[path])}"
            raise _unfitting(f"{what} for {describe_leaf(leaf)}", where)
    return jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), gradients, like)


def _unfitting(what: str, where: str) -> TrainingError:
    return TrainingError(
        f"Received gradients from {where} that do not fit the parameters: {what}; expected a tree "
        "like the one that it was given. Write gradients = jax.tree.map(..., gradients), and "
        "return gradients, {}."
    )
