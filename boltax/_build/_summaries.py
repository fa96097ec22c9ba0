"""The table of a model's layers: the whole of it for the run's folder, and one for the terminal."""

import shutil

from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.models._summary import narrowed, summarize
from boltax.models._variables_table import summarize_variables

_LINES = 60  # a longer summary is shown by its upper level


def summaries(
    adapter: ModelAdapter, calls: list[Call] | None, variables: Variables
) -> tuple[str, str]:
    """The whole table of a model's layers, and one that fits the terminal.

    Args:
        adapter: the model.
        calls: how it was called; None when an override of `run_model_init` has initialised it.
        variables: of the model.
    """
    width = shutil.get_terminal_size((120, 40)).columns
    if calls is None:
        return summarize_variables(variables), summarize_variables(variables, width=width)
    whole = summarize(adapter, calls)
    shown = narrowed(whole, width)  # without tracing the model again
    is_long = len(shown.splitlines()) > _LINES
    if is_long or max(map(len, shown.splitlines()), default=0) > width:
        shown = summarize(adapter, calls, depth=1 if is_long else None, width=width)
    return whole, shown
