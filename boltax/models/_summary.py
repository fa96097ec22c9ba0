"""The model summary: Flax's own table, or a plainer one of the variables where that fails."""

from collections.abc import Sequence

import jax

from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call, trace_abstractly
from boltax.models._summary_table import AS_WIDE_AS_IT_IS, fitted
from boltax.models._variables_table import plain_console, summarize_variables, tidy

WIDTH = 160


def summarize(
    adapter: ModelAdapter,
    calls: Call | Sequence[Call],
    *,
    depth: int | None = None,
    width: int | None = None,
) -> str:
    """A table of the model: its modules, their inputs, outputs and variables. Computes nothing.

    Args:
        adapter: the model.
        calls: how the model is called, as `ModelView` records it. NNX's table shows the first call
            only.
        depth: how many levels of submodules it shows; None for all.
        width: at most so many columns of text, for which columns of the table are left out; None
            for all of it.

    Returns:
        Plain text. Where Flax cannot tabulate the model, a table of its variables that says why.
    """
    calls = [calls] if isinstance(calls, Call) else list(calls)
    try:
        whole = adapter.tabulate(calls, depth=depth, console=plain_console(AS_WIDE_AS_IT_IS))
        text = fitted(whole, width)
        if text is None:  # a version of Flax, or an adapter, that draws it in another way
            text = adapter.tabulate(calls, depth=depth, console=plain_console(width or WIDTH))
        return tidy(text)
    except Exception as error:  # noqa: BLE001 - whatever it is, a summary must not end a run
        reason = (
            f"Flax made no table of {adapter.name}: {type(error).__name__}: {_first_line(error)}"
        )
        return f"{summarize_variables(_variables(adapter, calls), width=width)}{reason}\n"


def narrowed(summary: str, width: int) -> str:
    """The whole of a summary with the columns that fit; what is no table of Flax is as it was."""
    text = fitted(summary, width)
    return summary if text is None else tidy(text)


def _variables(adapter: ModelAdapter, calls: list[Call]) -> Variables:
    """The shapes of the model's variables."""

    def run(calls: list[Call]) -> Variables:
        key = jax.random.key(0)
        variables = adapter.empty(key)
        for args, kwargs, method in calls:
            _, variables = adapter.apply(
                variables,
                args,
                kwargs,
                train=True,
                keys=lambda _: key,
                method=method,
                initializing=True,
            )
        return variables

    return trace_abstractly(run, calls)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
