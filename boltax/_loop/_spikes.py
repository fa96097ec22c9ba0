"""Spikes of the loss, named on the host as soon as a record brings them; see `optim._spikes`."""

import logging
from collections.abc import Mapping
from typing import Any

import jax

from boltax._loop._one import One
from boltax._step._bodies import SPIKES
from boltax.metrics._accumulate import Metrics
from boltax.metrics._occurrences import Occurrences

_log = logging.getLogger("boltax")


def tell_spikes(one: One, metrics: Metrics) -> None:
    """Warns of the spikes among accumulated metrics that were not told before.

    Args:
        one: the run, in the epoch of the steps.
        metrics: of a record, or of an epoch.
    """
    found: Any = metrics.others.get(SPIKES)
    if not isinstance(found, Occurrences) or not int(jax.device_get(found.number)):
        return
    run = one.run
    # a step that was not finite and left out is none for the state, which names the others
    steps = [step + run.nonfinite for step in found.known()]
    new = [step for step in steps if step > run.told_spikes]
    if not new:
        return
    run.told_spikes = new[-1]
    before = run.step - run.counters.steps_done
    where = ", ".join(f"step {s} (epoch {run.epoch}, batch {s - before})" for s in new)
    is_left_out = _is_skipped(one.parts.config.get("optimizer_hparams"))
    _log.warning(
        "The loss jumped far above the level of the last steps at %s; %s.",
        where,
        "that update is left out" if is_left_out else "training goes on with it",
    )


def _is_skipped(hparams: Any) -> bool:
    if not isinstance(hparams, Mapping):
        return False
    parts: Any = hparams.get("optimizers") or {}
    return hparams.get("on_spike") == "skip" or any(map(_is_skipped, parts.values()))
