"""The best models of a run on disk, saved whenever a validation is better than all before.

    checkpoints/best/300/
      variables/       the arrays, by orbax
      structure.json   their names, shapes and dtypes
      metrics.json     the metrics with which they were saved
      manifest.json    the size and checksum of each file

It decides what is kept, not what is better. It keeps nothing open between two calls.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boltax._base._types import PyTree, ScalarMetrics, Variables
from boltax.checkpoint._arrays import read_arrays
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.checkpoint._step_folders import StepFolders
from boltax.errors import CheckpointError


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
        >>> import tempfile, numpy as np
        >>> checkpoints = BestCheckpoints(tempfile.mkdtemp(), keep=1)
        >>> checkpoints.save(10, {"params": {"w": np.ones(3, np.float32)}}, {"val/loss": 0.5})
        >>> checkpoints.restore().metrics
        {'val/loss': 0.5}
    """

    def __init__(self, directory: str | Path, keep: int = 1) -> None:
        self.directory = Path(directory)
        self.keep = keep
        self._folders = StepFolders(directory, "metrics", "variables")

    def save(
        self,
        step: int,
        variables: Variables,
        metrics: Mapping[str, Any],
        protected: Collection[int] = (),
    ) -> None:
        """Saves a model as the best so far, and deletes older ones beyond `keep`.

        Returns when everything is on the disk. A model saved before at the same step is replaced.
        When saving fails, all older ones are as they were.

        Args:
            step: completed optimizer updates; names the folder.
            variables: nested dicts of arrays by collection.
            metrics: name to number, or to an array.
            protected: steps of older ones that stay whatever `keep` is, because a resume checkpoint
                goes back to them.

        Raises:
            CheckpointError: when the variables hold something that is not an array.
            RunDirectoryError: when the files cannot be written.
        """
        if not isinstance(variables, Mapping):
            raise CheckpointError(
                f"Received variables of type {type(variables).__name__}; expected them by "
                "collection, e.g. save(300, {'params': params}, metrics)."
            )
        self._folders.save(
            step, variables, plain_metrics(metrics), keep=self.keep, protected=protected
        )

    def steps(self) -> list[int]:
        """The steps of the saved models, in the order of saving: the last is the best.

        One whose order cannot be read, because it is damaged, comes first.
        """
        return [saved.step for saved in self._folders.saved()]

    def discard_except(self, steps: Collection[int]) -> None:
        """Deletes the models that are not among `steps`.

        Raises:
            RunDirectoryError: when one cannot be deleted.
        """
        for saved in self._folders.saved():
            if saved.step not in steps:
                self._folders.remove(saved)

    def go_back(self, steps: Sequence[int], protected: Collection[int]) -> None:
        """Deletes the models of the time after a point to which a run goes back.

        Args:
            steps: those that were kept at that point, the best last.
            protected: steps of older ones that stay, because a resume checkpoint goes back to them.

        Raises:
            RunDirectoryError: when one cannot be deleted.
        """
        there = self.steps()
        is_there = bool(steps) and steps[-1] in there
        older = there[: there.index(steps[-1])] if is_there else []
        self.discard_except({*steps, *(step for step in older if step in protected)})

    def restore(self, template: PyTree = None, step: int | None = None) -> Best:
        """Loads a saved model, after its files were compared with their checksums.

        A damaged one is reported as a warning of the logger ``"boltax"`` with its files, and the
        one saved before it is loaded instead.

        Args:
            template: arrays, or `jax.ShapeDtypeStruct`, that the saved ones must match in name,
                shape and dtype; they are placed as these are. Without one, they are put on the
                default device.
            step: which one; by default the best, which is the one saved last.

        Returns:
            The variables, metrics and step.

        Raises:
            CheckpointError: when there is none, all are damaged or the one of `step` is, or it does
                not fit the template.
        """
        saved = self._folders.find(step)
        if saved is None:
            raise self._missing(step)
        variables = read_arrays(saved.folder, "variables", template)
        return Best(variables, read_metrics(saved.content), saved.step)

    def _missing(self, step: int | None) -> CheckpointError:
        steps = ", ".join(map(str, self.steps()))
        return CheckpointError(
            f"Received {self.directory}, which holds "
            f"{f'only those of steps {steps}' if steps else 'no saved model'}; expected the best "
            f"model{'' if step is None else f' of step {step}'} of a run. Give the run's folder "
            "(trainer.log_dir) after train_model has validated at least once."
        )
