"""A run that is stored: tested, or asked for its predictions."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from boltax._base._trees import path_text
from boltax._base._types import PyTree, ScalarMetrics
from boltax._configure._configuration import FILE, Named, loaders_of, read_configuration
from boltax._configure._mapping import changed
from boltax._configure._parser import data_arguments
from boltax.errors import ConfigurationError


def evaluate_run(path: str, options: list[str]) -> ScalarMetrics:
    """The metrics of a run's best model on the test set; without one, on the validation set.

    Args:
        path: the run's folder.
        options: ``--trainer``, ``--data``, ``--data_hparams.x``, in place of those of the run.

    Raises:
        ConfigurationError: when nothing makes a loader for it.
    """
    trainer_class, (_, val, test) = _of(path, options)
    loader, phase = (test, "test") if test is not None else (val, "val")
    if loader is None:
        raise ConfigurationError(
            "Received one loader, for training; expected one for the test too. Have the function "
            "that data names return train_loader, val_loader, test_loader."
        )
    return trainer_class.load_from_checkpoint(path).eval_model(loader, f"{phase}/")


def predict_run(path: str, options: list[str]) -> PyTree:
    """The outputs of a run's best model for the last of its loaders; see `evaluate_run`."""
    trainer_class, loaders = _of(path, options)
    loader = next(part for part in reversed(loaders) if part is not None)
    return trainer_class.load_from_checkpoint(path).predict_model(loader)


def _of(path: str, options: list[str]) -> tuple[Any, tuple[Any, Any, Any]]:
    has_file = (Path(path).expanduser() / FILE).is_file()
    stored = read_configuration(path)[0] if has_file else {}
    asked = changed({}, options)
    if "data" in asked:  # arguments of another function
        stored.pop("data_hparams", None)
    mapping = changed(
        {n: stored[n] for n in ("trainer", "data", "data_hparams") if n in stored}, options
    )
    named = Named.of(mapping)
    if named.trainer is None:
        raise ConfigurationError(
            f"Received the run {path}, which boltax fit did not make; expected the trainer's "
            "class. Write --trainer train.py:Classifier."
        )
    return named.trainer, loaders_of(named, mapping, data_arguments(named.data, mapping))


def write_predictions(path: Path, outputs: PyTree) -> None:
    """Writes outputs: one array as ``.npy``, several as ``.npz`` by their places."""
    leaves = jax.tree_util.tree_leaves_with_path(outputs)
    with path.open("wb") as file:
        if path.suffix == ".npy" and len(leaves) == 1:
            np.save(file, leaves[0][1], allow_pickle=False)
        else:
            arrays: dict[str, Any] = {_name(place): leaf for place, leaf in leaves}
            np.savez(file, **arrays)


def _name(path: tuple[Any, ...]) -> str:
    return path_text(path) or "outputs"
