"""Trainers made again: of a stored run, with other arguments, or only described."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boltax._build._constructed import Constructed
from boltax._build._construction import (
    LOADED,
    MEMBER,
    PREVIEWED,
    RESTORED,
    constructing,
    current,
    described_by,
)
from boltax._build._methods import is_trainer
from boltax._build._stored import write_hparams
from boltax.checkpoint._constructor_call import read_call
from boltax.errors import BoltaxError, ConfigurationError


def rebuild(
    trainer_class: type[Any],
    folder: Path,
    exmp_input: Any,
    arguments: Mapping[str, Any],
    *,
    has_values: bool = False,
) -> Any:
    """A trainer with the hyperparameters of a stored run.

    Args:
        trainer_class: its class.
        folder: the run's.
        exmp_input: an example batch, or None for one of the stored shape.
        arguments: constructor arguments in place of stored ones; with `logger_params` a run begins,
            in a folder of its own.
        has_values: whether its state has values; otherwise it has shapes.
    """
    call = read_call(folder, trainer_class)
    positional, keywords = call.arguments(exmp_input=exmp_input, given=arguments)
    way = RESTORED if has_values else LOADED
    if "logger_params" in arguments or current().name == PREVIEWED.name:
        way = current()
    with constructing(way):
        try:
            trainer = trainer_class(*positional, **keywords)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, BoltaxError) or not (fault := call.fault(positional, keywords)):
                raise
            raise call.failed(fault) from error
    if way in (LOADED, RESTORED) and call.is_folder_chosen:
        trainer._made.versions_in = str(folder.absolute().parent)
    return trainer


def describe_trainer(make: Callable[[], Any]) -> Constructed | None:
    """The trainer that a function makes, with its arguments, checked, and nothing else.

    It has no model, no folder and no state. None when the function makes no trainer.
    """
    made = described_by(make)
    return made if is_trainer(made) else None


def variant(trainer: Constructed, folder: Path, changes: Mapping[str, Any]) -> Any:
    """A trainer like another one, with other constructor arguments and a folder of its own.

    Its state has shapes and no values. It has no loggers and shows no progress.

    Raises:
        ConfigurationError: when the subclass's own constructor does not take the arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with constructing(MEMBER):
        return _changed(trainer, folder, changes)


def write_variant(trainer: Constructed, folder: Path, changes: Mapping[str, Any]) -> None:
    """Writes the ``hparams.json`` of `variant`, without making that trainer, which takes longer."""
    described = described_by(lambda: _changed(trainer, folder, changes))
    write_described(described, trainer._made.adapter.name, folder)


def write_described(described: Any, model: str, folder: Path) -> None:
    """Writes the ``hparams.json`` of a trainer that `describe_trainer` gave.

    Args:
        described: that trainer.
        model: the name of its model.
        folder: of the run.
    """
    own = {"model_class": model, "logger_params": _quiet(folder)["logger_params"]}
    write_hparams(folder, {**described.config, **own}, described._made.call, described.exmp_input)


def _quiet(folder: Path) -> dict[str, Any]:
    logger_params = {"log_dir": str(folder), "logger_type": "none"}
    return {"logger_params": logger_params, "enable_progress_bar": False}


def _changed(trainer: Constructed, folder: Path, changes: Mapping[str, Any]) -> Any:
    call = trainer._made.call
    own = {**call.named, "exmp_input": trainer.exmp_input}
    try:
        return type(trainer)(*call.positional, **{**own, **changes, **_quiet(folder)})
    except TypeError as error:
        raise ConfigurationError(
            f"Received {type(trainer).__name__}, whose constructor does not take "
            f"{', '.join(changes)} and logger_params ({error}); expected one that hands them on, "
            "so that members can be trainers of their own. Write def __init__(self, ..., "
            "**kwargs): super().__init__(..., **kwargs)."
        ) from error
