"""The names of metrics that user code gives: none is one that boltax writes, or that is there."""

from collections.abc import Collection, Mapping
from typing import Any

from boltax._base._types import StepMetrics
from boltax.errors import MetricsError

RESERVED_METRICS = (
    "loss",
    "l2_penalty",
    "grad_norm",
    "loss_scale",
    "param_norm",
    "update_norm",
    "epoch",
    "step",
)


def check_names(
    metrics: Any, where: str, taken: Collection[str] = (), returned: str = "(loss, metrics)"
) -> StepMetrics:
    """Metrics as a dict.

    Args:
        metrics: what a user's function gave.
        where: which one, for the error.
        taken: names of other metrics.
        returned: what it is to return.

    Raises:
        MetricsError: when they are no dict, or a name cannot be.
    """
    if not isinstance(metrics, Mapping):
        raise MetricsError(
            f"Received metrics of type {type(metrics).__name__} from {where}; expected {returned} "
            "with a dict of metrics, e.g. "
            'return loss, {"acc": logits.argmax(-1) == labels}.'
        )
    reserved = [name for name in metrics if name in RESERVED_METRICS]
    if reserved:
        raise MetricsError(
            f"Received a metric named {reserved[0]!r} from {where}; expected names other than "
            f"{', '.join(RESERVED_METRICS)}, which boltax writes itself. Leave out the loss, or "
            "give it another name."
        )
    if twice := [name for name in metrics if name in taken]:
        raise MetricsError(
            f"Received a metric named {twice[0]!r} from {where}, which is there already; expected "
            "another name. Leave it out, or call it otherwise."
        )
    return dict(metrics)
