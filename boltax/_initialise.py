"""Makes a model's variables from an example, compiled, and says what is wrong when the two do not fit."""

from collections.abc import Callable
from typing import Any

import jax

from boltax._steps import compile_init
from boltax._trees import describe
from boltax._types import Variables
from boltax.errors import BoltaxError, ModelError
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.models._view import ModelView

Run = Callable[[ModelView, Any], Any]
"""Runs the model on an example: a loss, or a plain call."""


def initialise(
    adapter: ModelAdapter, run: Run, example: Any, key: jax.Array, *, hparams: dict[str, Any]
) -> tuple[Variables, Call | None]:
    """Variables of a model, made by running it once in initialisation mode.

    Args:
        adapter: the model.
        run: ``(view, example)``; what it returns is thrown away.
        example: an example batch, or inputs.
        key: random key.
        hparams: what the view gives as ``model.hparams``.

    Returns:
        Variables by collection, and with what the model was called first.

    Raises:
        ModelError: when the example does not fit the model.
    """
    calls: list[Call] = []

    def init(example: Any, key: jax.Array) -> Variables:
        view = ModelView(adapter, adapter.empty(key), key, train=True, hparams=hparams, initializing=True)
        run(view, example)
        calls.extend(view.calls)
        return view.variables

    try:
        return compile_init(init)(example, key), calls[0] if calls else None
    except BoltaxError:
        raise
    except AttributeError as error:
        error.add_note("attributes of the trainer that its loss_function uses must be set before super().__init__()")
        raise
    except (TypeError, ValueError) as error:
        message = (
            f"Received exmp_input with {describe(example, 'exmp_input')}; expected an example that {adapter.name} "
            f"accepts, but running it once raised {type(error).__name__}: {error}. Hand in one batch of the loader, "
            "e.g. exmp_input=next(iter(train_loader)), and compare its shapes with what the model takes."
        )
        raise ModelError(message).with_traceback(error.__traceback__) from error
