"""Hooks of a trainer that few subclasses write; a part of `TrainerModule`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from boltax._base._types import PyTree, ScalarMetrics
from boltax._step._state import TrainState


class OptionalHooks:
    """What may be said about gradients and metrics beside the loss; each does nothing by itself."""

    def derived_metrics(self, metrics: ScalarMetrics) -> Mapping[str, Any]:
        """Further metrics, from those of a record, an epoch or an evaluation; on the host.

        For what is no mean over examples: ``{"ppl": math.exp(metrics["loss"])}``. They are metrics
        like all others, may be the monitor, and are there for each member of a population.

        Args:
            metrics: the exact means by name, without ``train/`` or ``val/``.
        """
        return {}

    def on_gradients(
        self,
        gradients: PyTree,
        *,
        loss: jax.Array,
        state: TrainState,
        updates: Callable[[PyTree], PyTree],
    ) -> Any:
        """Sees the gradients of each step before the optimizer has them; traced, like the loss.

        For noise, projections, surgery, and metrics of your own. The gradients are those of the
        whole batch: the mean over microbatches, without the scale of ``precision="fp16"``, before
        clipping. ``train/grad_norm`` is that of what is returned.

        Args:
            gradients: a tree like ``state.params``; of frozen parameters they are 0.
            loss: the loss that was differentiated, a scalar.
            state: the state before the step: ``state.params``, ``state.step``, ``state.hparams``.
            updates: ``updates(gradients)`` is what the optimizer would add to the parameters.

        Returns:
            ``(gradients, metrics)``, or the gradients alone. A metric is a number, whose mean over
            the steps is logged, a pair ``(total, count)``, or a mergeable object.
        """
        return gradients, {}
