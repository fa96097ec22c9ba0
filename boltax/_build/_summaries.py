"""The table of a model's layers: the whole of it for the run's folder, and one for the terminal."""

import shutil

from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.models._summary import summarize, summarize_variables

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
    if calls is None:
        whole = summarize_variables(variables)
        return whole, whole
    whole = summarize(adapter, calls)
    lines, width = whole.splitlines(), shutil.get_terminal_size((120, 40)).columns
    is_long = len(lines) > _LINES
    if not is_long and max(map(len, lines), default=0) <= width:
        return whole, whole
    depth = 1 if is_long else None
    return whole, summarize(adapter, calls, depth=depth, width=width)
