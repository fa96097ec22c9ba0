"""What ``hparams.json`` holds of a trainer: a configuration to read, arguments to give back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optax

from boltax.checkpoint._constructor_call import ConstructorCall
from boltax.checkpoint._files import write_json
from boltax.checkpoint._plain import plain
from boltax.checkpoint._rundir import RunDirectory
from boltax.parallel._parallel import Parallel


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


def recorded(parallel: Parallel | None) -> dict[str, Any]:
    """How a run lies on several devices, as its configuration has it; nothing for one."""
    return {} if parallel is None else {"parallel": parallel.recorded()}


def name_of_model(model_class: Any) -> str:
    """What a model is called before there is one."""
    return getattr(model_class, "__name__", type(model_class).__name__)


def write_hparams(
    folder: str | Path, config: Mapping[str, Any], call: ConstructorCall, exmp_input: Any
) -> None:
    """Writes ``hparams.json``: the configuration, and the arguments to be given back."""
    hparams = {**plain(config), **call.to_json(exmp_input)}
    write_json(RunDirectory(folder).hparams, hparams)
