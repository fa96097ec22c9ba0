"""Trainers and ``hparams.json``: what is written of a trainer, and a trainer made again from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optax

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
from boltax.checkpoint._constructor_call import ConstructorCall, read_call
from boltax.checkpoint._files import write_json
from boltax.checkpoint._plain import plain
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import ConfigurationError

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def config_of(
    *,
    model_class: str,
    model_hparams: Mapping[str, Any],
    optimizer_hparams: Any,
    hparams: Mapping[str, Any],
    **others: Any,
) -> dict[str, Any]:
    """The configuration of a run, with the names of the guide: for people and for loggers.

    Args:
        model_class: the name of the model.
        model_hparams: its arguments.
        optimizer_hparams: as given; a transformation is noted as one.
        hparams: the free hyperparameters, which stand beside the rest.
        **others: further arguments of the constructor.
    """
    is_made = isinstance(optimizer_hparams, optax.GradientTransformation)
    return {
        "model_class": model_class,
        "model_hparams": model_hparams,
        "optimizer_hparams": "an optax transformation" if is_made else optimizer_hparams,
        **others,
        **hparams,
    }


def name_of_model(model_class: Any) -> str:
    """What a model is called before there is one."""
    return getattr(model_class, "__name__", type(model_class).__name__)


def write_hparams(
    folder: str | Path, config: Mapping[str, Any], call: ConstructorCall, exmp_input: Any
) -> None:
    """Writes ``hparams.json``: the configuration, and the arguments to be given back."""
    hparams = {**plain(config), **call.to_json(exmp_input)}
    write_json(RunDirectory(folder).hparams, hparams)


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
        return trainer_class(*positional, **keywords)


def describe_trainer(make: Callable[[], Any]) -> "TrainerModule | None":
    """The trainer that a function makes, with its arguments, checked, and nothing else.

    It has no model, no folder and no state. None when the function makes no trainer.
    """
    made = described_by(make)
    return made if is_trainer(made) else None


def variant(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> Any:
    """A trainer like another one, with other constructor arguments and a folder of its own.

    Its state has shapes and no values. It has no loggers and shows no progress.

    Raises:
        ConfigurationError: when the subclass's own constructor does not take the arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with constructing(MEMBER):
        return _changed(trainer, folder, changes)


def write_variant(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> None:
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


def _changed(trainer: "TrainerModule", folder: Path, changes: Mapping[str, Any]) -> Any:
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
