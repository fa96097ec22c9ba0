"""What is asked once in a process, before its first model is initialised: how large is a step?"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from boltax._process._moments import before_first_model
from boltax._step._initialise import RunModel, forward_bytes
from boltax.models._adapter import ModelAdapter

_has_looked = threading.Event()


def look_at_first_model(
    adapter: ModelAdapter,
    run: RunModel,
    example: Any,
    hparams: Mapping[str, Any],
    note: Callable[[str], None],
) -> None:
    """Has whoever waits for the first model see how large the values of its forward pass are.

    Args:
        adapter: the model.
        run: ``(view, example)``: runs it.
        example: what it runs on.
        hparams: the free hyperparameters.
        note: shows a line to the user.
    """
    if _has_looked.is_set():
        return
    _has_looked.set()

    def count_values() -> int:
        with suppress(Exception):  # the initialisation says what is wrong
            return forward_bytes(adapter, run, example, hparams)
        return 0

    for look in before_first_model:
        if (hint := look(count_values)) is not None:
            note(hint)
