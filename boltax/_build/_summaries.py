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
    *,
    is_shown: bool = True,
) -> tuple[str, str]:
    """The whole table of a model's layers, and one that fits the terminal.

    On several devices another one follows, which says how each variable lies on them.

    Args:
        adapter: the model.
        calls: how it was called; None when an override of `run_model_init` has initialised it.
        variables: of the model.
        placement: where they lie.
        is_shown: whether the second is shown to anyone; it is empty otherwise.
    """
    whole = _all_layers(adapter, calls, variables)
    shown = _fitting(whole, adapter, calls, variables) if is_shown else ""
    lies = table(variables, placement, None)
    if not lies:
        return whole, shown
    lies_shown = table(variables, placement, MOST_ROWS)
    return f"{whole}\n{lies}", f"{shown}\n{lies_shown}" if is_shown else ""


def _all_layers(adapter: ModelAdapter, calls: list[Call] | None, variables: Variables) -> str:
    return summarize_variables(variables) if calls is None else summarize(adapter, calls)


def _fitting(
    whole: str, adapter: ModelAdapter, calls: list[Call] | None, variables: Variables
) -> str:
    width = shutil.get_terminal_size((120, 40)).columns
    if calls is None:
        return summarize_variables(variables, width=width)
    shown = narrowed(whole, width)  # without tracing the model again
    is_long = len(shown.splitlines()) > _LINES
    if is_long or max(map(len, shown.splitlines()), default=0) > width:
        shown = summarize(adapter, calls, depth=1 if is_long else None, width=width)
    return shown
