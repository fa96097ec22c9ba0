"""The table of a model's layers: the whole of it for the run's folder, and one for the terminal."""

import shutil

from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.models._summary import narrowed, summarize
from boltax.models._variables_table import summarize_variables
from boltax.parallel._placement import ONE_DEVICE, Placement
from boltax.parallel._table import MOST_ROWS, table

_LINES = 60  # a longer summary is shown by its upper level


def summaries(
    adapter: ModelAdapter,
    calls: list[Call] | None,
    variables: Variables,
    placement: Placement = ONE_DEVICE,
) -> tuple[str, str]:
    """The whole table of a model's layers, and one that fits the terminal.

    On several devices another one follows, which says how each variable lies on them.

    Args:
        adapter: the model.
        calls: how it was called; None when an override of `run_model_init` has initialised it.
        variables: of the model.
        placement: where they lie.
    """
    whole, shown = _layers(adapter, calls, variables)
    lies, lies_shown = (table(variables, placement, most) for most in (None, MOST_ROWS))
    return (f"{whole}\n{lies}", f"{shown}\n{lies_shown}") if lies else (whole, shown)


def _layers(
    adapter: ModelAdapter, calls: list[Call] | None, variables: Variables
) -> tuple[str, str]:
    width = shutil.get_terminal_size((120, 40)).columns
    if calls is None:
        return summarize_variables(variables), summarize_variables(variables, width=width)
    whole = summarize(adapter, calls)
    shown = narrowed(whole, width)  # without tracing the model again
    is_long = len(shown.splitlines()) > _LINES
    if is_long or max(map(len, shown.splitlines()), default=0) > width:
        shown = summarize(adapter, calls, depth=1 if is_long else None, width=width)
    return whole, shown
