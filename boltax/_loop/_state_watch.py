"""Variables of a model that become infinite or NaN without any loss that shows it.

BatchNorm statistics are such: training uses those of the batch, and only an evaluation those of the
state. So each validation looks at all variables, in one compiled call that reads them once, beside
the evaluation. What was not finite before the first step, as a lowest value that begins with
infinity, is left alone.
"""

import logging
from typing import Any

import jax

from boltax._base._types import State
from boltax._step._finite import inexact_variables
from boltax._step._steps import Steps
from boltax.errors import NonFiniteError

MOST_NAMED = 5
_log = logging.getLogger("boltax")


class StateWatch:
    """Which variables of a state were finite when they were last looked at.

    Args:
        steps: the compiled steps.
        state: as it is before the first step.
    """

    def __init__(self, steps: Steps, state: State) -> None:
        self._steps = steps
        self._flags = [ask(steps, state)]

    def ask(self, state: State) -> None:
        """Has the device look at a state, without waiting for what it says."""
        self._flags = [self._flags[0], ask(self._steps, state)]

    def tell(self, where: str, *, is_end: bool, best: int | None) -> None:
        """Tells which variables of the state that was asked about are not finite any more.

        Args:
            where: the moment.
            is_end: whether that ends the run.
            best: the step of the best model so far; None when there is none.

        Raises:
            NonFiniteError: naming them, where that ends the run.
        """
        before, now = jax.device_get(self._flags)
        self._flags = [now]  # each is told once
        names = [name for name, flag in now.items() if not flag and before.get(name, True)]
        if names and is_end:
            raise _error(names, where, best)
        if names:
            _log.warning("Not finite any more at %s: %s", where, listed(names))


def ask(steps: Steps, state: State) -> dict[str, Any]:
    """For each array of the model's variables, by name, whether it is finite; not awaited.

    Of the states of several members it is said for each.
    """
    leaves = inexact_variables(state)
    return dict(zip(leaves, steps.are_finite(list(leaves.values())), strict=True))


def listed(names: list[str]) -> str:
    """Names of variables, the first of them."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _error(names: list[str], where: str, best: int | None) -> NonFiniteError:
    kept = "" if best is None else f" The best model, of step {best}, is finite."
    return NonFiniteError(
        f"Received a model whose {listed(names)} became infinite or NaN before {where}; expected "
        "finite numbers, as they were at the start. No loss has shown it, since a training step "
        "does not use them. This state is not saved; a resume checkpoint after the validation "
        f"before may hold them.{kept} Look for inputs without bounds, or begin again with a lower "
        "learning rate; LoopOptions(on_nonfinite='continue') goes on with a warning."
    )
