"""Metrics that a trainer derives from others: of each record, epoch, evaluation, and member.

    values = compute(accumulated)          exact means, on the host
    values |= trainer.derived_metrics(values)

So what is no mean over examples is exact as well: a perplexity of a whole data set, not the mean of
those of its batches.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np

from boltax._base._metric_values import check_metric_values
from boltax._base._types import ScalarMetrics
from boltax._loop._layers import RECORD, of_layers_seen
from boltax.errors import MetricsError, noting
from boltax.metrics._accumulate import Metrics, compute, to_host

Derive: TypeAlias = "Callable[[ScalarMetrics], Mapping[str, Any]] | None"
"""`TrainerModule.derived_metrics`, where a subclass has one."""
_NAME = "derived_metrics"


def computed(metrics: Metrics, prefix: str, derive: Derive) -> ScalarMetrics:
    """The values of accumulated metrics, with those that are derived from them.

    Args:
        metrics: accumulated over some batches.
        prefix: put before each name, e.g. ``"val/"``.
        derive: see `Derive`.

    Raises:
        MetricsError: when `derive` asks for a metric that there is not, or gives no metrics.
    """
    values = of_layers_seen(metrics, compute(metrics), is_record=prefix == RECORD)
    if derive is not None and values:
        values |= _derived(derive, values)
    return {prefix + name: value for name, value in values.items()}


def derived_names(derive: Derive, names: Collection[str], prefix: str) -> list[str] | None:
    """All names of a record, as far as they are known before there are values.

    Args:
        derive: see `Derive`.
        names: those of the metrics, with their prefix.
        prefix: e.g. ``"val/"``.

    Returns:
        The names, those that are derived included; None where only values can tell.

    Raises:
        MetricsError: when `derive` asks for a metric that there is not.
    """
    if derive is None:
        return list(names)
    plain = [name.removeprefix(prefix) for name in names]
    try:
        # some numbers, since it is called on numbers; what it makes of them does not matter
        with np.errstate(all="ignore"):
            found = _derived(derive, {name: np.float64(0.5) for name in plain})
    except MetricsError:
        raise
    except Exception:  # noqa: BLE001 - of what a user's function does with numbers that are none
        return None
    return [*names, *(prefix + name for name in found)]


def _derived(
    derive: Callable[[ScalarMetrics], Mapping[str, Any]], values: ScalarMetrics
) -> ScalarMetrics:
    try:
        with noting(f"{_NAME}, called with {', '.join(values)}"):
            found: Any = derive(dict(values))
    except KeyError as error:
        name = error.args[0] if error.args else None
        if name in values or not isinstance(name, str):
            raise
        near = next(iter(difflib.get_close_matches(name, list(values), 1)), None)
        meant = f" Did you mean {near!r}?" if near else ""
        raise MetricsError(
            f"Received {_NAME} that asks for {name!r}; expected one of the metrics "
            f"{', '.join(values)}.{meant} Metrics of training alone, such as grad_norm, are asked "
            f'for by: if "grad_norm" in metrics.'
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise MetricsError(
            f"Received {found!r} ({type(found).__name__}) from {_NAME}; expected metrics by name. "
            'Write return {"ppl": math.exp(metrics["loss"])}.'
        )
    if twice := [name for name in found if name in values]:
        raise MetricsError(
            f"Received {twice[0]!r} from {_NAME}, which is a metric already; expected another "
            "name. Leave it out of what loss_function returns, or call it otherwise."
        )
    check_metric_values(found, _NAME)
    return {name: to_host(value) for name, value in found.items()}
