"""The best models of a run on disk, saved whenever a validation is among the best so far.

    checkpoints/best/300/
      variables/       the arrays, by orbax
      structure.json   their names, shapes and dtypes
      metrics.json     the metrics with which they were saved
      manifest.json    the size and checksum of each file

It decides what is kept, and asks others what is better. It keeps nothing open between two calls.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from boltax._base._types import PyTree, ScalarMetrics, Variables
from boltax.checkpoint._arrays import read_arrays
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.checkpoint._step_folders import StepFolders
from boltax.errors import CheckpointError
from boltax.parallel._group import group

_log = logging.getLogger("boltax")


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


class Kept(NamedTuple):
    """A model among the best, without its variables.

    Attributes:
        step: completed optimizer updates.
        metrics: the metrics with which it was saved.
    """

    step: int
    metrics: ScalarMetrics


class Ranking(NamedTuple):
    """What becomes of a new model and of those that are kept.

    Attributes:
        is_best: whether it is better than all.
        is_kept: whether it is to be saved.
        kept: all that are kept then, the best last.
    """

    is_best: bool
    is_kept: bool
    kept: tuple[Kept, ...]


def rank(
    new: Kept,
    best: ScalarMetrics | None,
    kept: Sequence[Kept],
    is_better: Callable[[ScalarMetrics, ScalarMetrics | None], bool],
    keep: int,
) -> Ranking:
    """Whether a new model is among the best, and in which place. Saves and deletes nothing.

    It is compared with the best first, and then downwards with those kept, until it is better than
    one. So equal ones stay in the order in which they came, and what is better than nothing, as NaN
    is, is never kept.

    Args:
        new: the new model.
        best: the metrics of the best one so far; None before the first.
        kept: those on the disk, or on their way there, the best last; empty where somebody else
            stores the best, so that no other passes for it.
        is_better: whether the first of two is better, as `TrainerModule.is_new_model_better`; asked
            about None when there is room for one that is better than none of those kept.
        keep: how many are kept.

    Example:
        >>> scores, kept = [5.0, 9.0, 8.0, 7.0, 8.5, 6.0], ()
        >>> for epoch, score in enumerate(scores, start=1):
        ...     best = kept[-1].metrics if kept else None
        ...     is_better = lambda new, old: old is None or new["acc"] > old["acc"]
        ...     kept = rank(Kept(epoch, {"acc": score}), best, kept, is_better, keep=3).kept
        >>> [model.step for model in kept]
        [3, 5, 2]
    """
    others = tuple(model for model in kept if model.step != new.step)
    if is_better(new.metrics, best):
        return Ranking(True, True, (*others, new)[-keep:])
    stays = Ranking(False, False, tuple(kept))
    if not others or len(others) < len(kept):  # the model of this very step is not made worse
        return stays
    place = len(others) - 1
    while place > 0 and not is_better(new.metrics, others[place - 1].metrics):
        place -= 1
    if place == 0 and (len(others) >= keep or not is_better(new.metrics, None)):
        return stays
    return Ranking(False, True, (*others[:place], new, *others[place:])[-keep:])


class BestCheckpoints:
    """The folder of a run's best models.

    Each is saved in its place among the others: by default above all. So neither step numbers
    decide, which start again when a trainer trains twice, nor metrics, which may be NaN, but
    whoever saves; `rank` finds the place by comparing metrics.

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
        *,
        ranking: Sequence[int] = (),
        protected: Collection[int] = (),
    ) -> None:
        """Saves a model as the best so far or below others, and deletes the worst beyond `keep`.

        Returns when everything is on the disk. A model saved before at the same step is replaced.
        When saving fails, all older ones are as they were.

        Args:
            step: completed optimizer updates; names the folder.
            variables: nested dicts of arrays by collection.
            metrics: name to number, or to an array.
            ranking: steps in their order, this one among them and the best last; by default this
                one is the best.
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
            step,
            variables,
            plain_metrics(metrics),
            keep=self.keep,
            ranking=ranking,
            protected=protected,
        )

    def steps(self) -> list[int]:
        """The steps of the saved models: the last is the best.

        One whose order cannot be read, because it is damaged, comes first.
        """
        return [saved.step for saved in self._folders.saved()]

    def kept(self, steps: Sequence[int]) -> list[Kept]:
        """What `rank` needs of the models of these steps, in this order.

        Those that are not there, or whose metrics cannot be read, are left out.
        """
        readable = {s.step: s.content for s in self._folders.saved() if s.is_readable}
        return [Kept(step, read_metrics(readable[step])) for step in steps if step in readable]

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
        numbers = {saved.step: saved.number for saved in self._folders.saved()}
        last = max((numbers[step] for step in steps if step in numbers), default=-1)
        older = (step for step, number in numbers.items() if number <= last)
        self.discard_except({*steps, *(step for step in older if step in protected)})

    def take_over(self, other: "BestCheckpoints", steps: Sequence[int]) -> None:
        """Copies models of another run.

        Args:
            other: where they are.
            steps: those that were kept there, the best last.

        Raises:
            CheckpointError: when the best is not there or damaged; others are left out with a
                warning then.
            RunDirectoryError: when one cannot be written.
        """
        for step in steps:
            try:
                model = other.restore(step=step)
            except CheckpointError as error:
                if step == steps[-1]:
                    raise
                _log.warning("The model of step %d is not copied: %s", step, error)
            else:
                self.save(model.step, model.variables, model.metrics)

    def restore(self, template: PyTree = None, step: int | None = None) -> Best:
        """Loads a saved model, after its files were compared with their checksums.

        A damaged one is reported as a warning of the logger ``"boltax"`` with its files, and the
        next best is loaded instead.

        Args:
            template: arrays, or `jax.ShapeDtypeStruct`, that the saved ones must match in name,
                shape and dtype; they are placed as these are. Without one, they are put on the
                default device.
            step: which one; by default the best.

        Returns:
            The variables, metrics and step.

        Raises:
            CheckpointError: when there is none, all are damaged or the one of `step` is, or it does
                not fit the template.
        """
        saved = self._folders.find(step)
        if saved is None:
            raise self._missing(step)
        read = partial(read_arrays, saved.folder, "variables", template)
        variables = group().together(f"reading the checkpoint {saved.folder}", read)
        return Best(variables, read_metrics(saved.content), saved.step)

    def _missing(self, step: int | None) -> CheckpointError:
        steps = ", ".join(map(str, self.steps()))
        return CheckpointError(
            f"Received {self.directory}, which holds "
            f"{f'only those of steps {steps}' if steps else 'no saved model'}; expected the best "
            f"model{'' if step is None else f' of step {step}'} of a run. Give the run's folder "
            "(trainer.log_dir) after train_model has validated at least once."
        )
