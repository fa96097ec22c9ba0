"""`boltax preflight`: what a trainer in a user's file needs, before it is trained anywhere."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from boltax._base._types import PyTree
from boltax._build._arguments import check_positive
from boltax._build._construction import previewing
from boltax._build._methods import is_trainer
from boltax._inspect._preflight import sized
from boltax._process._user_files import find_in_file
from boltax.errors import ConfigurationError


def preflight_file(
    text: str,
    *,
    batch_size: int | None = None,
    memory: int | None = None,
    is_search: bool = False,
    has_ways: bool = False,
    mesh: Mapping[str, int] | None = None,
) -> tuple[str, bool]:
    """What `TrainerModule.preflight` finds for a trainer that a function in a file makes.

    The trainer is made of shapes: no variable is initialised, and no run's folder is made.

    Args:
        text: ``FILE.py:FUNCTION``; called without arguments, the function returns a trainer, or a
            trainer and a batch. Without a batch the trainer's `exmp_input` is taken for one.
        batch_size: examples in a batch, in place of those that the batch has.
        memory: bytes of the device that is asked about, in place of this one's.
        is_search: whether to look for the largest batch size that fits, and report on that.
        has_ways: whether to look at ways to take less memory as well, and say what each needs.
        mesh: devices to be asked about in place of the trainer's own; there have to be so many.

    Returns:
        The report, and whether training fits (or nobody knows).

    Raises:
        ConfigurationError: for a function that returns something else, and as
            `TrainerModule.preflight` and `TrainerModule.find_batch_size`.
    """
    check_positive(batch_size=batch_size, memory=memory)
    with previewing(mesh):  # trainers that the file makes as it is loaded leave no folder either
        trainer, batch = _trainer_and_batch(_made(find_in_file(text)), text)
        if is_search:
            batch_size = trainer.find_batch_size(batch, limit=memory)
        if batch_size is not None:
            batch = sized(batch, batch_size)
        found = trainer.preflight(batch)
        ways = trainer.fitting(batch, memory or found.memory) if has_ways else None
    if memory is not None:
        found = replace(found, memory=memory)
    head = f"the largest batches that fit: {batch_size:,}\n\n" if is_search else ""
    if ways is not None:
        return f"{head}{found}\n\n{ways}", ways.chosen is not None
    return f"{head}{found}", found.fits is not False


def _made(found: Any) -> Any:
    """What the function of the file returns; what cannot be called without arguments is as it is.

    A trainer that the file makes as it is loaded is made of shapes already.
    """
    if isinstance(found, type) or not callable(found):
        return found
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return found
    return found()


def _kind(found: Any) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return "a function with arguments" if callable(found) else type(found).__name__


def _trainer_and_batch(made: Any, text: str) -> tuple[Any, PyTree]:
    trainer: Any
    is_pair = isinstance(made, tuple) and len(made) == 2
    trainer, batch = made if is_pair else (made, None)
    if not is_trainer(trainer):
        raise ConfigurationError(
            f"Received {_kind(trainer)} from {text}; expected a function without arguments "
            "that returns a trainer, or a trainer and a batch. Write: def make_trainer(): return "
            "Classifier(...)"
        )
    if batch is None and not trainer._made.uses_loss_steps:
        raise ConfigurationError(
            f"Received {trainer._made.name} from {text} without a batch; expected one, for its "
            "exmp_input is what the model is called with, and its steps are its own. Write: "
            "return trainer, next(iter(train_loader))"
        )
    return trainer, trainer.exmp_input if batch is None else batch
