"""The best models of a run on disk, saved whenever a validation is better than all before.

    checkpoints/best/300/
      variables/       the arrays, by orbax
      structure.json   their names, shapes and dtypes
      metrics.json     the metrics with which they were saved

It decides what is kept, not what is better. It keeps nothing open between two calls.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boltax._types import PyTree, ScalarMetrics, Variables
from boltax.checkpoint._arrays import read_arrays, write_arrays
from boltax.checkpoint._files import read_json, unwritable, write_json
from boltax.checkpoint._folders import (
    clean_leftovers,
    commit_folder,
    committed_folders,
    remove_folder,
    temporary_folder,
)
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.errors import CheckpointError, RunDirectoryError


class Best(NamedTuple):
    """A saved model.

    Attributes:
        variables: nested dicts of arrays by collection, bitwise as they were saved.
        metrics: the metrics with which it was saved.
        step: completed optimizer updates at that time.
    """

    variables: Variables
    metrics: ScalarMetrics
    step: int


class BestCheckpoints:
    """The folder of a run's best models.

    What is saved last is the best: `save` is called only for a model that is better than all
    before. So the order of saving decides what is kept, and neither step numbers, which start again
    when a trainer trains twice, nor metrics, which may be NaN.

    Args:
        directory: the folder; made with the first save.
        keep: how many of the best stay.

    Example:
        >>> import tempfile
        >>> checkpoints = BestCheckpoints(tempfile.mkdtemp(), keep=1)
        >>> checkpoints.save(10, {"params": {"w": np.ones(3, np.float32)}}, {"val/loss": 0.5})
        >>> checkpoints.restore().metrics
        {'val/loss': 0.5}
    """

    def __init__(self, directory: str | Path, keep: int = 1) -> None:
        self.directory = Path(directory)
        self.keep = keep

    def save(self, step: int, variables: Variables, metrics: Mapping[str, Any]) -> None:
        """Saves a model as the best so far, and deletes older ones beyond `keep`.

        Returns when everything is on the disk. A model saved before at the same step is replaced.
        When saving fails, all older ones are as they were.

        Args:
            step: completed optimizer updates; names the folder.
            variables: nested dicts of arrays by collection.
            metrics: name to number, or to an array.

        Raises:
            CheckpointError: when the variables hold something that is not an array.
            RunDirectoryError: when the files cannot be written.
        """
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            raise CheckpointError(
                f"Received step={step!r}; expected a whole number from 0, e.g. save(300, ...)."
            )
        if not isinstance(variables, Mapping):
            raise CheckpointError(
                f"Received variables of type {type(variables).__name__}; expected them by "
                "collection, e.g. save(300, {'params': params}, metrics)."
            )
        final = self.directory / str(int(step))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            clean_leftovers(self.directory)
            saved = self._saved(tolerant=True)
            try:
                folder = temporary_folder(final)
                write_arrays(folder, "variables", variables)
                number = 1 + max((number for number, _ in saved), default=0)
                record = {
                    "step": int(step),
                    "saved": number,
                    "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                }
                write_json(folder / "metrics.json", record | {"metrics": plain_metrics(metrics)})
                commit_folder(final)
            except BaseException:
                clean_leftovers(self.directory)
                raise
            older = [path for _, path in saved if path != final]
            for path in older[: max(0, len(older) + 1 - self.keep)]:
                remove_folder(path)
        except RunDirectoryError:
            raise
        except OSError as error:
            raise unwritable(final, error) from error

    def steps(self) -> list[int]:
        """The steps of the saved models, in the order of saving: the last is the best.

        Raises:
            CheckpointError: when the files of one are damaged.
        """
        return [int(path.name.removeprefix(".replaced-")) for _, path in self._saved()]

    def restore(self, template: PyTree = None, step: int | None = None) -> Best:
        """Loads a saved model.

        Args:
            template: arrays, or `jax.ShapeDtypeStruct`, that the saved ones must match in name,
                shape and dtype; they are placed as these are. Without one, they are put on the
                default device.
            step: which one; by default the best, which is the one saved last.

        Returns:
            The variables, metrics and step.

        Raises:
            CheckpointError: when there is none, its files are damaged, or it does not fit the
                template.
        """
        folder = self._folder(step)
        record = _read_record(folder)
        return Best(
            read_arrays(folder, "variables", template),
            read_metrics(record["metrics"]),
            record["step"],
        )

    def _folder(self, step: int | None) -> Path:
        folders = committed_folders(self.directory)
        if step is not None and str(step) in folders:
            return folders[str(step)]
        saved = self._saved()
        if step is None and saved:
            return saved[-1][1]
        there = (
            f"only those of steps {', '.join(map(str, self.steps()))}"
            if saved
            else "no saved model"
        )
        raise CheckpointError(
            f"Received {self.directory}, which holds {there}; expected the best "
            f"model{'' if step is None else f' of step {step}'} of a run. Give the run's folder "
            "(trainer.log_dir) after train_model has validated at least once."
        )

    def _saved(self, *, tolerant: bool = False) -> list[tuple[int, Path]]:
        """Number and folder of each, oldest first; `tolerant` takes damaged ones for the oldest."""
        saved: list[tuple[int, Path]] = []
        for name, path in committed_folders(self.directory).items():
            if not (name.isascii() and name.isdigit()):
                continue
            try:
                saved.append((_read_record(path)["saved"], path))
            except CheckpointError:
                if not tolerant:
                    raise
                saved.append((0, path))
        return sorted(saved, key=lambda item: item[0])


def _read_record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "metrics.json")
    if isinstance(record, dict) and isinstance(record.get("metrics"), dict):
        numbers = (record.get("step"), record.get("saved"))
        if all(
            isinstance(number, int) and not isinstance(number, bool) and number >= 0
            for number in numbers
        ):
            return record
    raise CheckpointError(
        f"Received {folder / 'metrics.json'} without a step, a number of the save and metrics; "
        "expected it as boltax writes it. Restore the file from a copy, or load another "
        "checkpoint: restore(step=...)."
    )
